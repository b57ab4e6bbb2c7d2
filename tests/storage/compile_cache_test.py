"""A second start finds the programs of the first; what a kill leaves is dropped."""

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from gan_jax import main
from gan_jax.runtime.exit_codes import ExitCode
from gan_jax.storage.compile_cache import drop_partial_entries, use_compile_cache

SETTINGS = (
  'jax_compilation_cache_dir',
  'jax_compilation_cache_max_size',
  'jax_persistent_cache_min_compile_time_secs',
)


@pytest.fixture
def programs(tmp_path, monkeypatch):
  """The default folder of programs, below tmp_path; it is not in use yet."""
  monkeypatch.setenv('GAN_JAX_CACHE', str(tmp_path / 'cache'))
  monkeypatch.delenv('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', raising=False)
  before = {name: getattr(jax.config, name) for name in SETTINGS}
  compilation_cache.reset_cache()
  jax.config.update('jax_compilation_cache_dir', None)
  yield tmp_path / 'cache' / 'jax'
  for name, value in before.items():
    jax.config.update(name, value)
  compilation_cache.reset_cache()


@pytest.fixture
def events():
  """Names of the events that jax records."""
  names = []
  listen = lambda name, **_: names.append(name.rpartition('/')[2])
  jax.monitoring.register_event_listener(listen)
  yield names
  jax.monitoring.unregister_event_listener(listen)


def compile_anew(f, x):
  jax.clear_caches()
  return jax.jit(f)(x)


@pytest.mark.slow
def test_the_second_start_of_a_run_compiles_nothing(programs, events, tmp_path):
  def start(images):
    jax.clear_caches()
    flags = (
      '--config=biggan_digits:tiny',
      f'--workdir={tmp_path / "run"}',
      f'--config.train.images={images}',
      '--config.log.grid_rows=2',
      '--config.log.grid_columns=2',
      '--config.model.d_widths=(1, 2)',
    )
    events.clear()
    assert main.train(*main.parse(flags)) == ExitCode.FINISHED
    return [events.count(f'{x}') for x in ('compile_requests_use_cache', 'cache_hits')]

  requests, _ = start(8)
  assert requests > 3
  requests, hits = start(16)
  assert hits == requests > 3


def test_half_written_programs_are_dropped_and_compiled_again(programs, events):
  use_compile_cache()
  double = lambda x: x * 2 + 1
  compile_anew(double, jnp.ones(3))
  compile_anew(double, jnp.ones(3))
  assert 'cache_hits' in events
  (entry,) = programs.glob('jit__lambda*-cache')
  whole = entry.read_bytes()
  entry.write_bytes(whole[:9])
  entry.with_name(entry.name.replace('-cache', '-atime')).unlink()
  drop_partial_entries(programs)
  assert not entry.exists()
  compile_anew(double, jnp.ones(3))
  assert len(entry.read_bytes()) > 9
  drop_partial_entries(programs)
  assert entry.exists()


def test_old_programs_make_room_for_new_ones(programs, monkeypatch):
  use_compile_cache()
  assert jax.config.jax_compilation_cache_max_size == 4 * 2**30
  compilation_cache.reset_cache()
  jax.config.update('jax_compilation_cache_max_size', 30_000)
  for i in range(8):
    compile_anew(lambda x, i=i: jnp.sin(x) * i, jnp.ones(5 + i))
  sizes = [path.stat().st_size for path in programs.glob('*-cache')]
  assert 0 < sum(sizes) <= 30_000


def test_each_process_of_a_job_keeps_its_programs(programs, monkeypatch, events):
  state = jax._src.distributed.global_state
  monkeypatch.setattr(state, 'process_id', 1)
  compiler = jax._src.compiler
  monkeypatch.setattr(compiler, '_cache_write', compiler._cache_write)
  use_compile_cache(process=1)
  for _ in range(2):
    compile_anew(lambda x: x * 3 - 1, jnp.ones(4))
  assert list((programs / 'process1').glob('jit__lambda*-cache'))
  assert 'cache_hits' in events


def test_a_folder_that_jax_was_given_stays(programs, tmp_path):
  jax.config.update('jax_compilation_cache_dir', str(tmp_path / 'own'))
  use_compile_cache()
  assert jax.config.jax_compilation_cache_dir == str(tmp_path / 'own')
  assert not programs.exists()


@pytest.mark.parametrize('cache', ['gs://bucket/cache', '/proc/nowhere'])
def test_no_programs_are_kept_where_they_cannot_be(programs, monkeypatch, cache):
  monkeypatch.setenv('GAN_JAX_CACHE', cache)
  use_compile_cache()
  assert jax.config.jax_compilation_cache_dir is None
