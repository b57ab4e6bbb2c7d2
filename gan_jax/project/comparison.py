"""How a projection compares images: LPIPS, or pixels."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from gan_jax import UserError
from gan_jax.evaluation.metrics import lpips
from gan_jax.evaluation.metrics.perceptual_path_length import lpips_input
from gan_jax.project.optimization import Comparison, Features

LOSSES = ('lpips', 'pixels')
MIN_SIDE = 32  # pixels that LPIPS is given: AlexNet's last stage has one place then


def make_comparison(loss: str | None, files: str | None) -> tuple[Comparison, str]:
  """The comparison that the user asks for.

  Args:
    loss: one of LOSSES; None: 'lpips' where there are weights, else 'pixels'.
    files: weights of LPIPS, as of `lpips.load`.

  Returns:
    The comparison, and the digest of its weights; '' without weights.

  Raises:
    UserError: there are no weights for 'lpips', or one is missing.
  """
  if loss == 'pixels' and files:
    raise UserError('--lpips is for --loss=lpips, and --loss=pixels is given.')
  if loss == 'pixels' or (loss is None and not files and not lpips.has_weights()):
    return PIXELS, ''
  weights, stamp = lpips.load(files, 'projecting with --loss=lpips')
  return lpips_comparison(weights, stamp['network']), stamp['weights']


def lpips_comparison(weights: lpips.Lpips, name: str) -> Comparison:
  """LPIPS, and for RGBA images the mean squared difference of alpha besides.

  Images of more than 256 pixels are averaged down to 256, as in projector.py. Those of
  less than MIN_SIDE are enlarged by repeating their pixels.
  """

  def features(images: Float[Array, 'b h w c']) -> Features:
    factor = max(1, -(-MIN_SIDE // min(images.shape[1:3])))
    x = lpips_input(images.repeat(factor, 1).repeat(factor, 2))
    alpha = [images[..., 3:]] if images.shape[-1] == 4 else []
    return {'lpips': lpips.features(weights, x), 'alpha': alpha}

  def distance(a: Features, b: Features) -> Float[Array, ' b']:
    total = lpips.difference(weights, a['lpips'], b['lpips'])
    return sum(map(_mean_square, a['alpha'], b['alpha']), total)

  return Comparison(name, features, distance)


def _mean_square(a: Array, b: Array) -> Float[Array, ' b']:
  return jnp.square(a - b).mean((1, 2, 3))


PIXELS = Comparison('pixels', lambda images: images, _mean_square)
