"""Options of a projection, as fields and as flags."""

import dataclasses
import math

from gan_jax import UserError
from gan_jax.project.comparison import LOSSES
from gan_jax.project.spaces import SPACES
from gan_jax.runtime.flags import flag
from gan_jax.sampling.animation import ANIMATIONS

MAX_SEED = 2**32 - 1
FILMS = tuple(kind[1:] for kind in ANIMATIONS)


@dataclasses.dataclass(frozen=True)
class ProjectOptions:
  """Everything besides the generator and the images that a projection depends on.

  Raises:
    UserError: a value is out of range, or an option needs another one.
  """

  space: str | None = flag(
    None,
    'w: one w for all layers; w+: one for each layer; z: the input of the generator; '
    'default: w for a StyleGAN, z otherwise',
    choices=SPACES,
  )
  steps: int = flag(1000, 'steps of the optimization', metavar='N')
  classes: str = flag(
    '',
    'labels or names of the classes of the images, assigned in turn; default: in z the '
    'class is optimized too, w starts from the mean of all classes',
  )
  loss: str | None = flag(
    None,
    'lpips: perceptual distance (extra lpips); pixels: mean squared difference; '
    'default: lpips where its weights are installed',
    choices=LOSSES,
  )
  lpips: str | None = flag(
    None,
    'weights of VGG-16 or AlexNet and of LPIPS, joined by commas; default: '
    '$GAN_JAX_LPIPS, or those of the extra lpips',
    metavar='FILES',
  )
  noise_weight: float | None = flag(
    None,
    'weight of the penalty that keeps noise maps noise; default: 1e5, as in the '
    'original, at 1024 pixels, and for other images in proportion to their pixels',
    metavar='W',
  )
  seed: int = flag(303, 'of the noise', metavar='N')
  pad: bool = flag(False, 'pad images to a square instead of cropping them')
  background: str = flag('white', 'color behind padding and transparency')
  tune: bool = flag(
    False, 'then fine-tune the generator for these images (pivotal tuning): OUT/tuned'
  )
  tune_steps: int | None = flag(None, 'steps of --tune; default: 350', metavar='N')
  film: str = flag('webp', 'format of the film of the optimization', choices=FILMS)
  save_every: int = flag(100, 'steps between saves, to go on from', metavar='N')

  def __post_init__(self) -> None:
    for name in ('steps', 'tune_steps', 'save_every'):
      value = vars(self)[name]
      if value is not None and value < 1:
        raise UserError(f'--{name}={value}: it must be at least 1.')
    weight = self.noise_weight
    if weight is not None and not 0 <= weight < math.inf:
      raise UserError(f'--noise_weight={weight}: it must be at least 0.')
    if not 0 <= self.seed <= MAX_SEED:
      raise UserError(f'--seed={self.seed}: allowed are 0 to {MAX_SEED}.')
    if self.tune_steps is not None and not self.tune:
      raise UserError('--tune_steps needs --tune, which is not given.')
