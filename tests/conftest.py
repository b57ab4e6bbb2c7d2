"""A strict session on eight virtual CPU devices."""

import contextlib
import os
import random
import socket
import uuid
from pathlib import Path

from tests.xla_flags import QUICK_COMPILES

# In the environment, before jax is imported, so that processes started by a test
# inherit it.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# The compile cache itself is switched on by JAX_COMPILATION_CACHE_DIR.
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.5')
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES', '-1')
_flags = os.environ.get('XLA_FLAGS', '')
if 'xla_force_host_platform_device_count' not in _flags:
  _flags += ' --xla_force_host_platform_device_count=8'
for _flag in QUICK_COMPILES.split():
  if _flag.partition('=')[0] not in _flags:
    _flags += f' {_flag}'
os.environ['XLA_FLAGS'] = _flags.strip()

# gan_jax adds its own XLA flags, so it comes before jax.
import gan_jax  # noqa: E402, F401, I001
import jax  # noqa: E402
import pytest  # noqa: E402
from absl import logging  # noqa: E402

from tests.browser import chromium, new_tab  # noqa: E402, F401  (fixtures)

# A missing axis in a broadcast is an error.
jax.config.update('jax_numpy_rank_promotion', 'raise')


def pytest_addoption(parser):
  parser.addoption(
    '--reference',
    metavar='DIR',
    type=Path,
    default=Path(__file__).parent / 'golden',
    help='outputs of the original implementations (default: tests/golden)',
  )


def pytest_collection_modifyitems(items):
  """Marks tests that need a server of a store.

  Long tests first, or one worker would wait for the other at the end.
  """
  for item in items:
    if 'store_servers' in getattr(item, 'fixturenames', ()):
      item.add_marker('stores')
  first = ('tests/parity', 'tests/end_to_end', 'tests/training')
  rank = lambda item: next(
    (i for i, f in enumerate(first) if item.nodeid.startswith(f)), 3
  )
  items.sort(key=rank)


@pytest.fixture(autouse=True)
def log_level():
  """Commands change absl's log level; every test begins with the default one."""
  logging.set_verbosity(logging.WARNING)


@pytest.fixture(scope='session')
def reference(request) -> Path:
  """The folder with the outputs of the original implementations."""
  return request.config.getoption('--reference')


@pytest.fixture(scope='session')
def trained_workdir(tmp_path_factory):
  """Trains configs/NAME.py:tiny once per session: (NAME, section__key=value) -> run.

  A run is its workdir, which must be copied before it is changed, and its last state.
  """
  from tests import runs

  finished = {}

  def run(name, **changes):
    key = name, repr(sorted(changes.items()))
    if key not in finished:
      workdir = tmp_path_factory.mktemp(name)
      finished[key] = workdir, runs.train(runs.tiny_config(name, **changes), workdir)
    return finished[key]

  return run


@pytest.fixture(scope='module', autouse=True)
def programs_of_a_module():
  """Frees compiled programs: Linux limits the memory mappings of a process."""
  yield
  jax.clear_caches()


@pytest.fixture
def rng_seed() -> int:
  """A new seed per run; GAN_JAX_TEST_SEED repeats the one a failing test prints."""
  seed = int(os.environ.get('GAN_JAX_TEST_SEED') or random.randrange(2**31))
  print(f'GAN_JAX_TEST_SEED={seed}')
  return seed


@pytest.fixture
def strict_dtypes():
  """No implicit dtype promotion, for code that mixes bfloat16 and float32.

  Not for all tests: optax's Adam (`decay ** count`) and linen's modules in bfloat16
  promote implicitly.
  """
  with jax.numpy_dtype_promotion('strict'):
    yield


@pytest.fixture
def record_parity(record_property):
  """A function that adds a line to the summary of the session."""
  return lambda line: record_property('parity', line)


def pytest_terminal_summary(terminalreporter):
  reports = [
    r for kind in ('passed', 'failed') for r in terminalreporter.getreports(kind)
  ]
  lines = [
    line for r in reports for name, line in r.user_properties if name == 'parity'
  ]
  if lines:
    terminalreporter.section('parity with the original implementations')
    for line in sorted(set(lines)):
      terminalreporter.write_line(line)


@pytest.fixture
def free_port() -> int:
  """A TCP port of this machine that is not in use."""
  with socket.socket() as s:
    s.bind(('127.0.0.1', 0))
    return s.getsockname()[1]


@pytest.fixture(scope='session')
def digits_run(trained_workdir) -> Path:
  """Workdir of a finished run of a BigGAN with 10 classes at 16 pixels."""
  return trained_workdir('biggan_digits')[0]


@pytest.fixture(scope='session')
def stylegan_run(trained_workdir) -> Path:
  """Workdir of a finished run of a StyleGAN; psi acts on 2 of its 4 layers."""
  return trained_workdir('stylegan_lsun', model__truncated_layers=2)[0]


@pytest.fixture(scope='session')
def store_servers():
  """Starts the server of a kind of store when it is first asked for."""
  from tests.storage import stores

  running = {}
  with contextlib.ExitStack() as stack:

    def variables(scheme):
      if scheme not in running:
        server = stores.gcs_server if scheme == 'gs' else stores.s3_server
        running[scheme] = stack.enter_context(server())
      return running[scheme]

    yield variables


@pytest.fixture(params=['gs', 's3'])
def url(request, store_servers, monkeypatch):
  """An empty folder of a store; skipped where the packages of [stores] are missing."""
  for name, value in store_servers(request.param).items():
    monkeypatch.setenv(name, value)
  return f'{request.param}://bucket/runs/{uuid.uuid4().hex}'


@pytest.fixture(params=['gs', 's3'])
def scheme_without_login(request, tmp_path, monkeypatch):
  """A kind of store whose credentials this user lacks."""
  pytest.importorskip('gcsfs' if request.param == 'gs' else 's3fs')
  for name in ('STORAGE_EMULATOR_HOST', 'GOOGLE_APPLICATION_CREDENTIALS'):
    monkeypatch.delenv(name, raising=False)
  for name in ('AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY', 'AWS_PROFILE'):
    monkeypatch.delenv(name, raising=False)
  for name in ('CLOUDSDK_CONFIG', 'AWS_CONFIG_FILE', 'AWS_SHARED_CREDENTIALS_FILE'):
    monkeypatch.setenv(name, str(tmp_path / 'none'))
  monkeypatch.setenv('AWS_EC2_METADATA_DISABLED', 'true')
  return request.param


@pytest.fixture
def gate(url, store_servers, monkeypatch):
  """A proxy before the server of `url`; it may refuse requests."""
  from tests.storage import stores

  with stores.Gate(store_servers(url[:2])).open() as gate:
    for name, value in gate.variables.items():
      monkeypatch.setenv(name, value)
    yield gate
