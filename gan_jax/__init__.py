"""ProGAN, StyleGAN and BigGAN in JAX/Flax, for one laptop CPU or a whole pod."""

from gan_jax.runtime.environment import set_xla_flags
from gan_jax.runtime.errors import UserError

__version__ = '0.2.0'
__all__ = ['UserError']

set_xla_flags()
