"""The compiler's answers: cached, and out of memory."""

from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from gan_jax.plan import compilation, formatting, gpus
from gan_jax.runtime.mesh import make_mesh


class OutOfMemory:
  """A lowered program that the compiler refuses; it compiles once."""

  def __init__(self, message: str):
    self._message, self._compiled = message, False

  def as_text(self):
    return self._message

  def compile(self, options):
    assert not self._compiled, 'compiled again'
    self._compiled = True
    raise jax.errors.JaxRuntimeError(f'RESOURCE_EXHAUSTED: {self._message}')


USED = (
  'XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 20.50G '
  'of 15.75G hbm. Exceeded hbm capacity by 4.75G.'
)
TEMPORARIES = (
  'Ran out of memory on HBM, the total memory required for HLO temporaries (16.50G) '
  'exceeds available HBM (15.75G).'
)


@pytest.mark.parametrize(
  'message, name, gib',
  [
    (USED, 'hbm_bytes', 20.5),
    (TEMPORARIES, 'temporary_bytes', 16.5),
    ('Too much.', 'temporary_bytes', 0),
  ],
)
def test_an_out_of_memory_error_is_a_cached_answer(message, name, gib, tmp_path):
  lowered = OutOfMemory(message)
  for _ in range(2):
    figures = compilation.compile_cached(lowered, make_mesh(), tmp_path)
    assert figures[name] == int(gib * 2**30)
    assert message[:20] in figures['out_of_memory']
  options = {'xla_tpu_run_space_to_batch': False}  # another program, not in the cache
  figures = compilation.compile_cached(
    OutOfMemory(message), make_mesh(), tmp_path, options=options
  )
  assert len(list(tmp_path.iterdir())) == 2
  assert figures['compiler_options'] == options


class GpuProgram:
  """A lowered program that compiles to an excerpt of one for GPUs."""

  def as_text(self):
    return 'module'

  def compile(self, options):
    self.options = options
    sizes = dict(argument=100, output=90, alias=80, temp=1000)
    memory = SimpleNamespace(**{f'{k}_size_in_bytes': n for k, n in sizes.items()})
    text = (Path(__file__).parent / 'compiled' / 'h100_2x2.hlo').read_text()
    return SimpleNamespace(
      memory_analysis=lambda: memory,
      cost_analysis=lambda: None,  # as XLA answers for GPUs
      as_text=lambda: text,
    )


def test_figures_of_a_program_for_gpus_and_their_report(tmp_path):
  lowered, gpu = GpuProgram(), gpus.GPUS['h100']
  own = {'xla_gpu_enable_latency_hiding_scheduler': True}  # lowered with it
  figures = compilation.compile_cached(lowered, make_mesh(), tmp_path, gpu, own)
  assert lowered.options == {'xla_gpu_autotune_level': 0}
  assert figures['compiler_options'] == own | lowered.options
  assert figures['hbm_bytes'] == 100 + 90 - 80 + 1000
  assert figures['kernels'] == 14 and figures['cycles'] > 14_000  # nanoseconds
  assert figures['program_flops'] > 0 and figures['compute_s'] > 0
  assert [c['network'] for c in figures['collectives']] == [0, 0, 0]  # one process
  row = dict(config='c.py', topology='h100:8', chips=8, pixels='8 x 8', batch=64)
  row |= dict(chip=gpu._asdict(), params_bytes=5, optimizer_bytes=6, ema_bytes=7)
  row |= dict(fits=True)
  row |= dict(networks_flops=1e12, weights_flops=1e9, step_s=0.1, images_per_s=640)
  row |= dict(mfu=0.5, slowest_mfu=0.4, memory_s=0.1, collectives_s=0.1, state_bytes=1)
  text = formatting.format_row(row | figures, top=1)
  assert '14 kernels, 100 ms per step; 640 images/s' in text
  assert 'copies       5 copies (5.12 kB), 1 transposes (262 kB)' in text
  assert 'products     3 conv bf16, 2 dot bf16, 1 dot f32; layouts 3 b01f' in text
  assert '1 all-reduce (1.02 kB; sent 1.54 kB in nodes)' in text
  full = formatting.format_row(row | figures | dict(hbm_bytes=70e9), top=0)
  assert '70 GB of 80.7 GB per device: fits with XLA_PYTHON_CLIENT_MEM_FRACTION' in full
