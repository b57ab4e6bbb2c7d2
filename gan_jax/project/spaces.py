"""The spaces that images are projected into: w, w+ and z.

'w' has one w for all layers, 'w+' one for each; both are a StyleGAN's. 'z' is the input
of the generator. There the class is optimized as well, unless it is given: as weights
over the classes.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from gan_jax import UserError
from gan_jax.models.base import GAN
from gan_jax.models.base import Variables as Weights
from gan_jax.project.optimization import Variables
from gan_jax.runtime.image_size import Size

SPACES = ('w', 'w+', 'z')
SAMPLES = 10_000  # whose mean is where w starts
SEED = 123  # of the samples and of the candidates
CLASS_WEIGHT = 0.9  # that the class of the start has, where it is optimized


def check_space(space: str | None, gan: GAN) -> str:
  """The space to project into; by default 'w' for a StyleGAN and 'z' otherwise.

  Raises:
    UserError: the family does not have it.
  """
  if gan.style_based is None and space not in (None, 'z'):
    raise UserError(
      f'--space={space} is for a StyleGAN; a {type(gan).__name__} has --space=z.'
    )
  return space or ('w' if gan.style_based else 'z')


@dataclasses.dataclass(frozen=True)
class Renderer:
  """Images of what is optimized.

  Attributes:
    space: one of SPACES.
    res: of the images, in pixels.
    alpha: how far `res` has faded in.
  """

  gan: GAN
  space: str
  res: int
  alpha: ArrayLike

  @property
  def noise_sizes(self) -> list[Size]:
    """Heights and widths of the noise maps; [] without noise."""
    style = self.gan.style_based
    return style.sizes(self.res) if style else []

  @property
  def latent_shape(self) -> tuple[int, ...]:
    """The shape of the latent of one image."""
    style = self.gan.style_based
    if self.space == 'z' or style is None:
      return (self.gan.dim_z,)
    layers = style.layers(self.res) if self.space == 'w+' else 1
    return (layers, style.dim_w)

  def ws(
    self, g: Weights, variables: Variables, classes: Float[Array, 'b classes']
  ) -> Float[Array, 'b layers dim_w']:
    """One w per layer of a StyleGAN."""
    style, latent = self.gan.style_based, variables['latent']
    assert style is not None
    if self.space == 'z':
      labels = self.labels(variables, classes)
      return style.truncate(g, style.w(g, latent, labels), 1.0, self.res)
    shape = (len(latent), style.layers(self.res), style.dim_w)
    return jnp.broadcast_to(latent, shape)

  def __call__(
    self, g: Weights, variables: Variables, classes: Float[Array, 'b classes']
  ) -> Float[Array, 'b h w c']:
    """Images in about [-1, 1].

    Args:
      classes: class weights, where `variables` has none; [b, 1] without classes.
    """
    style = self.gan.style_based
    if style is None:
      labels = self.labels(variables, classes)
      return self.gan.generate(
        g, variables['latent'], labels, res=self.res, alpha=self.alpha
      )
    ws, noise = self.ws(g, variables, classes), tuple(variables.get('noise', ()))
    return style.synthesize(g, ws, noise, res=self.res, alpha=self.alpha)

  def constrained(self, variables: Variables) -> Variables:
    """Variables after a step, with z scaled back where the network does that itself.

    There a longer z changes the image little, and z would grow, so that each step turns
    it less than the one before.
    """
    if self.space != 'z' or not self.gan.normalize_z:
      return variables
    z = variables['latent']
    length = jnp.sqrt(jnp.square(z).mean(-1, keepdims=True) + 1e-8)
    return {**variables, 'latent': z / length}

  def labels(self, variables: Variables, classes: Array) -> Array:
    """What the networks take as labels: class weights; zeros [b] without classes."""
    if not self.gan.n_classes:
      return jnp.zeros(len(classes), jnp.int32)
    if 'classes' in variables:
      return jax.nn.softmax(variables['classes'])
    return classes


def class_logits(labels: np.ndarray, n_classes: int) -> Float[np.ndarray, 'n classes']:
  """Logits whose softmax has CLASS_WEIGHT at the label and the rest spread evenly."""
  rest = (1 - CLASS_WEIGHT) / max(n_classes - 1, 1)
  weights = np.where(np.eye(n_classes)[labels] > 0, CLASS_WEIGHT, rest)
  return np.log(weights).astype(np.float32)


def statistics(
  samples: Float[np.ndarray, 'n dim'],
) -> tuple[Float[np.ndarray, ' dim'], float]:
  """The mean, and the root of the total variance, of samples of a latent.

  The variances of all entries are added, as in projector.py.
  """
  mean = samples.mean(0, dtype=np.float64)
  variance = np.square(samples - mean).sum() / len(samples)
  return mean.astype(np.float32), float(np.sqrt(variance))
