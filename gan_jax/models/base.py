"""What a family of GANs must say to the training step, the sampler and the planner."""

from typing import Any, ClassVar, NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.typing import ArrayLike

from gan_jax.nn.spectral_norm import spectral_scales

Variables = dict[str, Any]  # flax collections: params, spectral, batch_stats, moving
Metrics = dict[str, Array]


@struct.dataclass
class Phase:
  """What moves with the images seen: one compile per `res`, the rest is traced."""

  alpha: ArrayLike  # how far the highest resolution has faded in, 0..1
  g_lr: ArrayLike
  d_lr: ArrayLike
  ema: ArrayLike  # decay per step of the generator's moving average
  res: int = struct.field(pytree_node=False, default=0)


class Batch(NamedTuple):
  """Real pictures: images uint8 [b, h, w, c], labels int32 [b]."""

  images: Array
  labels: Array


class GAN(Protocol):
  """A family: its networks, two losses and generation. Frozen, hashable, stateless.

  `d_loss` and `g_loss` are differentiated by the step with respect to the `params`
  of d and of g. Both return the loss and, beside it, both networks' variables with
  their non-parameter collections moved on, and scalar metrics. Their `draws` are
  whatever the family's `draw` returns.
  """

  # The average follows the weights that G had before this iteration's own step, and
  # copies all that is not a parameter; otherwise it is one of everything after it.
  ema_lags: ClassVar[bool]

  def __hash__(self) -> int: ...

  @property
  def res(self) -> int: ...  # final

  @property
  def channels(self) -> int: ...

  @property
  def n_classes(self) -> int: ...  # 0: not conditional

  @property
  def dim_z(self) -> int: ...

  @property
  def group(self) -> int:
    """How many examples D compares: a micro-batch of all devices has whole groups."""
    ...

  def init(self, key: Array) -> tuple[Variables, Variables]: ...

  def draw(self, key: Array, index: Array, phase: Phase) -> Any:
    """Noise and labels for the examples `index` [b] of a global batch."""
    ...

  def d_loss(
    self, g: Variables, d: Variables, batch: Batch, draws: Any, phase: Phase
  ) -> tuple[Array, tuple[Variables, Variables, Metrics]]: ...

  def g_loss(
    self, g: Variables, d: Variables, draws: Any, phase: Phase
  ) -> tuple[Array, tuple[Variables, Variables, Metrics]]: ...

  def generate(
    self,
    g: Variables,
    z: Array,
    labels: Array,
    psi: ArrayLike = 1.0,
    *,
    keys: Array | None = None,
    res: int = 0,
    alpha: ArrayLike = 1.0,
  ) -> Array:
    """Images about [-1, 1], NHWC; labels int32 [b] or weights over classes [b, n].

    Args:
      psi: shrinks the latents towards their mean: z in BigGAN, w in StyleGAN.
      keys: one [b] for each image's noise beside z; None: noise that never changes.
      res: the resolution a growing run has come to; 0: the final one.
      alpha: how far that has faded in.
    """
    ...

  def standing(self, g: Variables, z: Array, labels: Array) -> Variables:
    """g with batch statistics taken anew from z [n, b, dim_z] and labels [n, b]."""
    ...


def apply_network(
  module: nn.Module,
  variables: Variables,
  *args: Any,
  train: bool,
  eps: float = 1e-12,
  iterations: int = 1,
) -> tuple[Any, Variables]:
  """Applies a network with normalised weights.

  Args:
    train: batch statistics are used and every non-parameter collection moves on.
    eps: floor of the lengths in the power iteration.
    iterations: power iterations in training; evaluation always does one, from the
      stored u and without keeping it.

  Returns:
    The output, and the variables after it (the same ones outside training).
  """
  scales, spectral = spectral_scales(
    variables['params'],
    variables.get('spectral', {}),
    eps=eps,
    iterations=iterations if train else 1,
    shared=train,
  )
  used = {**variables, 'scales': scales}
  if not train:
    return module.apply(used, *args, train=False), variables
  out, moved = module.apply(used, *args, train=True, mutable=['batch_stats', 'moving'])
  return out, {**variables, **moved, 'spectral': spectral}


def to_float(images: Array, dtype: Any = jnp.float32) -> Array:
  """uint8 in 0..255 -> [-1, 1]; floats are taken to be there already."""
  if jnp.issubdtype(images.dtype, jnp.floating):
    return images.astype(dtype)
  return images.astype(dtype) / 127.5 - 1


def to_uint8(images: Array) -> Array:
  """[-1, 1] -> 0..255, rounded; what lies beyond is cut."""
  return jnp.clip(jnp.round((images + 1) * 127.5), 0, 255).astype(jnp.uint8)


def example_keys(key: Array, index: Array) -> Array:
  """One key for each global example index [b]: devices change nothing."""
  return jax.vmap(jax.random.fold_in, (None, 0))(key, index)
