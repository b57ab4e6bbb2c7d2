"""ProGAN, StyleGAN and BigGAN in JAX and Flax, for a laptop CPU or a whole pod.

  import gan_jax
  generator = gan_jax.load('runs/emoji')
  images = generator.sample(seeds=range(16), truncation=0.5)

The names of the public API are imported when they are first used, so that
`import gan_jax` does not import jax.
"""

import importlib
from typing import Any

from gan_jax.runtime.environment import set_xla_flags
from gan_jax.runtime.errors import UserError

__version__ = '0.2.0'

_MODULES = {
  'BigGAN': 'models.biggan',
  'ProGAN': 'models.progan',
  'StyleGAN': 'models.stylegan',
  'Trainer': 'training.trainer',
  'load': 'sampling.generator',
  'load_config': 'config',
}
__all__ = ['UserError', *_MODULES]

set_xla_flags()


def __getattr__(name: str) -> Any:
  if name not in _MODULES:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  value = getattr(importlib.import_module(f'{__name__}.{_MODULES[name]}'), name)
  globals()[name] = value
  return value


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})
