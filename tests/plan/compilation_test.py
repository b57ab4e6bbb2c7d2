"""The compiler's answers: cached, and out of memory."""

import jax
import pytest

from gan_jax.plan import compilation
from gan_jax.runtime.mesh import make_mesh


class OutOfMemory:
  """A lowered program that the compiler refuses; it compiles once."""

  def __init__(self, message: str):
    self._message, self._compiled = message, False

  def as_text(self):
    return self._message

  def compile(self):
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
