"""What the package changes in its process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gan_jax.runtime import environment

PROGRAMS = Path(__file__).parent / 'programs'
ROOT = Path(__file__).parents[2]


def printed_number(program: str, **env: str) -> int:
  inherited = {k: v for k, v in os.environ.items() if not k.startswith('MALLOC_')}
  done = subprocess.run(
    [sys.executable, PROGRAMS / program],
    env=inherited | {'PYTHONPATH': str(ROOT)} | env,
    capture_output=True,
    check=True,
  )
  return int(done.stdout)


@pytest.mark.skipif(sys.platform != 'linux', reason='glibc')
def test_freed_memory_is_reused_by_the_next_execution_unless_malloc_is_configured():
  """Counts the pages mapped for four executions of a program that has run before."""
  assert printed_number('page_faults.py', JAX_PLATFORMS='cpu') < 1000
  default = printed_number(
    'page_faults.py', JAX_PLATFORMS='cpu', MALLOC_TRIM_THRESHOLD_='0'
  )
  assert default > 100_000


@pytest.mark.skipif(sys.platform != 'linux', reason='glibc')
def test_programs_execute_on_the_calling_thread_on_a_cpu_only():
  assert not printed_number('async_dispatch.py', JAX_PLATFORMS='cpu')
  assert printed_number('async_dispatch.py', JAX_PLATFORMS='cuda')


@pytest.mark.parametrize(
  'jaxlib, flags',
  [
    ('0.9.2', '--a=1'),
    ('0.10.2', f'--a=1 {environment._CPU_FLAG}'),
    ('0.12.0.1', f'--a=1 {environment._CPU_FLAG}'),
    ('0.13.0', '--a=1'),
  ],
)
def test_the_flag_is_set_for_releases_of_jaxlib_that_know_it(
  jaxlib, flags, monkeypatch
):
  monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
  monkeypatch.setenv('XLA_FLAGS', '--a=1')
  monkeypatch.setattr(environment.importlib.metadata, 'version', lambda _: jaxlib)
  environment.set_xla_flags()
  assert os.environ['XLA_FLAGS'] == flags


def test_options_of_a_program_for_several_gpus(monkeypatch):
  monkeypatch.setenv('XLA_FLAGS', '')
  assert environment.gpu_compiler_options(1) is None
  options = environment.gpu_compiler_options(2)
  assert options['xla_gpu_enable_latency_hiding_scheduler'] is True
  assert sum('combine_threshold_bytes' in name for name in options) == 3
  monkeypatch.setenv('XLA_FLAGS', '--xla_gpu_enable_latency_hiding_scheduler=false')
  left = environment.gpu_compiler_options(2)
  assert options.keys() - left.keys() == {'xla_gpu_enable_latency_hiding_scheduler'}


def test_an_option_that_xla_does_not_know_is_left_out():
  options = {'xla_gpu_autotune_level': 4, 'xla_gpu_no_such_option': 1}
  assert environment.known_compiler_options(options) == {'xla_gpu_autotune_level': 4}


def test_options_of_a_program_of_few_channels_for_a_tpu(monkeypatch):
  monkeypatch.delenv('LIBTPU_INIT_ARGS', raising=False)
  options = environment.tpu_compiler_options()
  assert options == dict.fromkeys(options, False) and len(options) == 2
  first, second = sorted(options)  # the first name begins the second one
  monkeypatch.setenv('LIBTPU_INIT_ARGS', f'--{second}=true')
  assert environment.tpu_compiler_options() == {first: False}
  monkeypatch.setenv('LIBTPU_INIT_ARGS', f'--{first} --{second}')
  assert environment.tpu_compiler_options() is None
