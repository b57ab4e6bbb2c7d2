"""`Augmentation`: which images D sees, and how strongly they are changed."""

import dataclasses
from typing import Literal, Protocol

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray

from gan_jax import UserError
from gan_jax.models.augmentation import ada, diffaugment
from gan_jax.runtime.errors import did_you_mean
from gan_jax.runtime.keys import check_ranges, key

Role = Literal['real', 'fake', 'between']  # between: where WGAN-GP is taken
ROLES: tuple[Role, ...] = ('real', 'fake', 'between')
MIN_SIGNS = 16  # scores of real images for one adjustment of p

State = dict[str, Array]


class Augment(Protocol):
  """What a loss does with every image before D sees it."""

  def __call__(
    self, images: Float[Array, 'b h w c'], role: Role
  ) -> Float[Array, 'b h w c']:
    """The augmented images; gradients flow through. Each role has its own draws."""
    ...

  def metrics(self, real_scores: Float[Array, 'b 1']) -> dict[str, Array]:
    """Metrics of D's scores of augmented real images."""
    ...


class _Unaugmented:
  """Leaves images as they are and adds nothing to a program."""

  def __call__(
    self, images: Float[Array, 'b h w c'], role: Role
  ) -> Float[Array, 'b h w c']:
    del role
    return images

  def metrics(self, real_scores: Float[Array, 'b 1']) -> dict[str, Array]:
    del real_scores
    return {}


UNAUGMENTED: Augment = _Unaugmented()


@dataclasses.dataclass(frozen=True)
class Augmentation:
  """Augmentation of all images that D sees, in its own updates and in G's.

  DiffAugment comes before ADA if both are on. ADA applies each transform of its pipe
  with probability p, which is fixed or adjusted: p rises while the mean sign of D's
  scores of real images is above `target`, a sign of memorization, and else falls.

  Raises:
    UserError: an unknown policy or pipe, or an impossible value.
  """

  policy: str = key(
    '', "of DiffAugment: 'color,translation,cutout' or a part; '': none"
  )
  pipe: str = key('', "of ADA: 'bgc', blit, geom, color, bg, bgcf, ...; '': none")
  fixed_p: float = key(
    0.0, 'probability of each transform of the pipe; 0: adjusted', at_least=0, at_most=1
  )
  target: float = key(
    0.6,
    "mean sign of D's scores of reals that p is adjusted to",
    at_least=-1,
    at_most=1,
  )
  ramp: int = key(
    500_000, 'reals in which p can rise by 1; 100,000 to fine-tune', at_least=1
  )
  interval: int = key(4, 'iterations between two adjustments of p', at_least=1)

  def __post_init__(self) -> None:
    check_ranges('augment', self)
    for name in diffaugment.parse_policy(self.policy):
      if name not in diffaugment.TRANSFORMS:
        raise UserError(
          f'augment.policy is {self.policy!r}, with the unknown entry {name!r}'
          f'{did_you_mean(name, diffaugment.TRANSFORMS)}: take a comma list of '
          f'{_join(diffaugment.TRANSFORMS)}, or nothing.'
        )
    if self.pipe and self.pipe not in ada.PIPES:
      raise UserError(
        f'augment.pipe is {self.pipe!r}{did_you_mean(self.pipe, ada.PIPES)}: take one '
        f'of {_join(ada.PIPES)}, or nothing.'
      )
    if self.fixed_p and not self.pipe:
      raise UserError(
        f'augment.fixed_p is {self.fixed_p}, but augment.pipe is empty: name the pipe '
        "that it is the probability of, e.g. 'bgc'."
      )

  @property
  def is_on(self) -> bool:
    return bool(self.policy or self.pipe)

  @property
  def is_adjusted(self) -> bool:
    """Whether p is part of the train state."""
    return bool(self.pipe) and not self.fixed_p

  def check(self, channels: int, res: int, signs: int) -> None:
    """Checks what depends on the other sections of a config.

    Args:
      channels: of the images.
      res: the shorter side in pixels of the smallest images that are trained.
      signs: D's scores of real images in one iteration.

    Raises:
      UserError: the pipe cannot be applied to such images, or p would be adjusted on
        too few scores.
    """
    transforms = ada.PIPES.get(self.pipe, ())
    if channels not in (1, 3) and set(transforms) & {*ada.COLOR}:
      raise UserError(
        f'augment.pipe is {self.pipe!r}, whose colour transforms are for 1 or 3 '
        f'channels, and model.channels is {channels}: take bg, which has none.'
      )
    if res < ada.MIN_FILTERED and 'imgfilter' in transforms:
      raise UserError(
        f'augment.pipe is {self.pipe!r}, whose image filter needs {ada.MIN_FILTERED} '
        f'pixels, and training is at {res} pixels at first: take bgc, or resolutions '
        'from 32 up.'
      )
    if self.is_adjusted and signs * self.interval < MIN_SIGNS:
      raise UserError(
        f'augment.interval={self.interval} iterations of {signs} real images are '
        f'{signs * self.interval} scores for each adjustment of p, and at least '
        f'{MIN_SIGNS} are needed: set augment.interval to {-(-MIN_SIGNS // signs)}, '
        'raise schedule.batch, or fix p by augment.fixed_p.'
      )

  def init_state(self) -> State:
    """The part of the train state that adjusts p; nothing if p is not adjusted.

    `signs` is the sum over the `scores` since the last adjustment.
    """
    if not self.is_adjusted:
      return {}
    return {
      'p': jnp.zeros((), jnp.float32),
      'signs': jnp.zeros((), jnp.int32),
      'scores': jnp.zeros((), jnp.int32),
    }

  def p(self, state: State) -> ArrayLike:
    """The probability of each transform of the pipe."""
    return state['p'] if self.is_adjusted else self.fixed_p

  def metrics(self, state: State) -> dict[str, Array]:
    """The metric `augment_p` of a pipe."""
    if not self.pipe:
      return {}
    return {'augment_p': jnp.asarray(self.p(state), jnp.float32)}

  def augment(self, keys: PRNGKeyArray, state: State) -> Augment:
    """The augmentation of a micro-batch.

    Args:
      keys: one key per example [b], by its global index.
    """
    return _Augment(self, keys, self.p(state)) if self.is_on else UNAUGMENTED

  def next_state(
    self, state: State, mean_sign: Float[Array, ''], scores: int, step: ArrayLike
  ) -> State:
    """The state after an iteration.

    Args:
      mean_sign: of D's scores of the iteration's real images on all devices; if it is
        non-finite, as after a skipped update, the iteration does not count.
      scores: number of these scores.
      step: iterations done, this one included.
    """
    if not self.is_adjusted:
      return {}
    # An exact sum: a mean of so many signs is an integer over their number.
    is_finite = jnp.isfinite(mean_sign)
    sign = jnp.round(jnp.where(is_finite, mean_sign, 0) * scores).astype(jnp.int32)
    signs, total = (
      state['signs'] + sign,
      state['scores'] + jnp.where(is_finite, scores, 0),
    )
    p = adjusted(
      state['p'], signs / jnp.maximum(total, 1), total, self.target, self.ramp
    )
    due = jnp.asarray(step) % self.interval == 0
    return {
      'p': jnp.where(due, p, state['p']),
      'signs': jnp.where(due, 0, signs),
      'scores': jnp.where(due, 0, total),
    }


OFF = Augmentation()


def adjusted(
  p: ArrayLike,
  mean_sign: ArrayLike,
  images: ArrayLike,
  target: float,
  ramp: int,
) -> Float[Array, '']:
  """p after an adjustment on so many scores; at least 0, without an upper limit."""
  change = jnp.sign(mean_sign - target) * (images / ramp)
  return jnp.maximum(p + change, 0)


@dataclasses.dataclass(frozen=True)
class _Augment:
  """The augmentation of one micro-batch: see `Augment`."""

  augmentation: Augmentation
  keys: PRNGKeyArray  # [b]
  p: ArrayLike

  def __call__(
    self, images: Float[Array, 'b h w c'], role: Role
  ) -> Float[Array, 'b h w c']:
    fold = jax.vmap(jax.random.fold_in, (0, None))
    keys, (h, w, c) = fold(self.keys, ROLES.index(role)), images.shape[1:]
    x = images.astype(jnp.promote_types(images.dtype, jnp.float32))
    with jax.named_scope('augment'):
      if policy := diffaugment.parse_policy(self.augmentation.policy):
        x = diffaugment.apply(policy, x, diffaugment.draw(fold(keys, 0), h, w))
      if pipe := ada.PIPES.get(self.augmentation.pipe):
        x = ada.apply(pipe, x, ada.draw(fold(keys, 1), pipe, (h, w, c)), self.p)
    return x.astype(images.dtype)

  def metrics(self, real_scores: Float[Array, 'b 1']) -> dict[str, Array]:
    return {'d_sign': jnp.sign(real_scores).mean()}


def _join(names: tuple[str, ...] | dict[str, tuple[str, ...]]) -> str:
  *first, last = names
  return f'{", ".join(first)} and {last}'
