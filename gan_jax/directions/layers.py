"""The layers that directions act on, and SeFa in some of them."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool

from gan_jax import UserError
from gan_jax.directions import finding
from gan_jax.directions.finding import Found
from gan_jax.sampling.generator import TrainedGenerator
from gan_jax.sampling.options import parse_ranges
from gan_jax.sampling.style_mixing import parse_mix_layers


def parse_layers(
  text: str | None, generator: TrainedGenerator
) -> Bool[np.ndarray, ' n']:
  """The layers of --layers; None: all that the present resolution has.

  Raises:
    UserError: the model has no such layers.
  """
  style = generator.gan.style_based
  if style is None:
    n = last = len(generator.gan.latent_kernels(generator.variables))
    chosen = range(n) if text is None else parse_ranges(text, 'layers')
  else:
    n, res = style.layers(style.res), generator.resolution
    last = style.layers(res)
    chosen = range(last)
    if text is not None:
      bands = parse_mix_layers(text, style, res, 'layers')
      chosen = sorted(layer for band in bands for layer in band)
  if max(chosen) >= last:
    raise UserError(f'--layers={text}: layers are 0-{last - 1}.')
  return np.isin(np.arange(n), chosen)


def factorize_layers(generator: TrainedGenerator, layers: Iterable[int]) -> Found:
  """SeFa of these layers.

  Raises:
    UserError: none of them takes the latent as its input.
  """
  kernels = [np.asarray(x) for x in generator.gan.latent_kernels(generator.variables)]
  chosen = [kernels[i] for i in layers if i < len(kernels)]
  if not chosen:
    raise UserError('--method=sefa: no layer of this model takes w as its input.')
  return finding.factorize(chosen)


def first_of(found: Found, n: int) -> Found:
  """The first n directions of a strength above 0."""
  kept = found.values > 1e-9 * found.values[0]
  return Found(*(x[kept][:n] for x in found))
