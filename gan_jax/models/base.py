"""The interface of a GAN family, and what the three families share."""

import functools
import math
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Int, Num, PRNGKeyArray, UInt8

from gan_jax.models.augmentation import Augment
from gan_jax.nn.spectral_norm import spectral_scales
from gan_jax.runtime.image_size import Size

Variables = dict[str, Any]  # Flax collections: params, spectral, batch_stats, moving
Metrics = dict[str, Array]  # scalars by name


@struct.dataclass
class Phase:
  """Values that change with the number of images seen.

  `res` is static: a new resolution compiles a new program. The others are traced.
  """

  alpha: ArrayLike  # how far the highest resolution has faded in, in (0, 1]
  g_lr: ArrayLike
  d_lr: ArrayLike
  ema: ArrayLike  # decay of the EMA weights of G per step
  res: int = struct.field(pytree_node=False, default=0)


class Batch(NamedTuple):
  """A batch of real images with their labels."""

  images: UInt8[Array, '*batch h w c']
  labels: Int[Array, '*batch'] | Float[Array, '*batch n']  # classes, or label vectors


class SamplingDefaults(NamedTuple):
  """Truncation where none is given: that of the family's original code.

  Sampling only. Training, its sample grids and scores do not truncate.
  """

  psi: float = 1.0
  truncation: float = math.inf  # threshold for z at psi = 1
  scaled_truncation: float = math.inf  # threshold for z at any other psi

  def resolve(
    self, psi: float | None = None, truncation: float | None = None
  ) -> tuple[float, float]:
    """psi and the threshold for z, both with their defaults."""
    psi = self.psi if psi is None else psi
    if truncation is None:
      truncation = self.truncation if psi == 1 else self.scaled_truncation
    return psi, truncation


# Keys of a model that decide how it is trained or computed, not which function it is.
TRAINING_KEYS = frozenset(
  (
    *('fake_labels', 'dtype', 'bfloat16_from', 'remat', 'bn_group', 'bn_momentum'),
    *('loss', 'r1_gamma', 'gp_weight', 'gp_target', 'drift', 'class_weight'),
    'mixing_groups',
  )
)

Network = Literal['g', 'd']
Blocks = tuple[tuple[str, ...], ...]  # of each block, globs of the names of its layers

Loss = tuple[Float[Array, ''], tuple[Variables, Variables, Metrics]]


class GAN(Protocol):
  """A GAN family: its networks, its two losses and its generator in evaluation mode.

  A family is a frozen, hashable dataclass of config values; arrays are passed in and
  out. `g` and `d` are the variables of the generator and of the discriminator.

  The training step differentiates `d_loss` by the `params` of d and `g_loss` by the
  `params` of g. Both return the loss, the variables of both networks with updated
  non-parameter collections, and scalar metrics.
  """

  __dataclass_fields__: ClassVar[dict[str, Any]]

  # True: EMA weights follow the weights that G had before this iteration's update, and
  # the collections besides `params` are copied. False: the EMA is of all collections,
  # after the update.
  ema_lags: ClassVar[bool]
  grows: ClassVar[bool]  # whether resolutions are added in the course of training

  def __hash__(self) -> int: ...

  @property
  def res(self) -> int:
    """Final resolution: the side of square images in pixels."""
    ...

  @property
  def first_map(self) -> tuple[int, ...]:
    """Height and width of the first feature map; (4, 4) if images are square."""
    ...

  def size(self, res: int = 0) -> Size:
    """Height and width of images at a resolution; 0 for the final one."""
    ...

  @property
  def channels(self) -> int: ...

  @property
  def n_classes(self) -> int:
    """Number of classes; 0 for an unconditional model."""
    ...

  @property
  def fake_labels(self) -> str:
    """Labels of the fakes in `g_loss`: 'data' or 'uniform'.

    'data': those of the iteration's real images, in their order, which have the
    distribution of the dataset. 'uniform': as drawn by `draw_inputs`.
    """
    ...

  @property
  def dim_z(self) -> int: ...

  @property
  def group(self) -> int:
    """Number of consecutive examples that D compares with each other.

    The global micro-batch must be divisible by it.
    """
    ...

  @property
  def normalize_z(self) -> bool:
    """Whether z is scaled to a root mean square of 1 before the first layer."""
    ...

  @property
  def style_based(self) -> 'StyleBased | None':
    """The family itself if it has a mapping and a synthesis network, else None."""
    ...

  @property
  def truncation_space(self) -> Literal['z', 'w']:
    """Where truncation acts: 'z' draws z within a threshold, 'w' scales w by psi."""
    ...

  @property
  def sampling_defaults(self) -> SamplingDefaults:
    """psi and the threshold for z where a sampler is given none."""
    ...

  @property
  def has_batch_stats(self) -> bool:
    """Whether batch statistics depend on the truncation of z.

    If so, samplers call `standing_statistics` for each truncation.
    """
    ...

  @property
  def shares_batch_stats(self) -> bool:
    """Whether G's batch statistics are taken over several devices.

    The per-device gradients of G are then correlated, so that its gradient noise scale
    is undefined.
    """
    ...

  @property
  def remat(self) -> bool | None:
    """Whether activations are rematerialized; None if the family cannot do it."""
    ...

  def blocks_of(self, network: Network) -> Blocks:
    """The layers of each block of a network, by globs of their names.

    G's blocks are in order from 4x4 on, D's from the image on. Class embeddings, the
    mapping network and the last layers of D are in no block.
    """
    ...

  @property
  def block_sizes(self) -> tuple[int, ...]:
    """Resolution of the output of each of `blocks_of('g')`."""
    ...

  def init(self, key: PRNGKeyArray) -> tuple[Variables, Variables]:
    """Initial variables of G and D."""
    ...

  def draw_inputs(
    self, key: PRNGKeyArray, index: Int[Array, ' b'], phase: Phase
  ) -> Any:
    """Random inputs of one forward pass, for `d_loss` or `g_loss`.

    Args:
      index: global example indices. An example's inputs depend on its index only, not
        on the number of devices.

    Returns:
      BigGANInputs, ProGANInputs or StyleGANInputs.
    """
    ...

  def d_loss(
    self,
    g: Variables,
    d: Variables,
    batch: Batch,
    inputs: Any,
    phase: Phase,
    augment: Augment,
  ) -> Loss:
    """Loss of D on a batch of real images and as many fake ones, all augmented."""
    ...

  def g_loss(
    self, g: Variables, d: Variables, inputs: Any, phase: Phase, augment: Augment
  ) -> Loss:
    """Loss of G on augmented fake images."""
    ...

  def generate(
    self,
    g: Variables,
    z: Float[Array, 'b dim_z'],
    labels: Num[Array, 'b ...'],
    psi: ArrayLike = 1.0,
    *,
    keys: PRNGKeyArray | None = None,
    res: int = 0,
    alpha: ArrayLike = 1.0,
  ) -> Float[Array, 'b h w c']:
    """Images in evaluation mode. The range is about [-1, 1]; values are not clipped.

    Args:
      labels: int32 [b], or weights over the classes [b, n_classes].
      psi: scales the latents towards their mean: z in BigGAN and ProGAN, w in StyleGAN.
      keys: keys [b] of each image's noise besides z; None: the noise stored with the
        weights.
      res: resolution of a growing GAN; 0 for the final one.
      alpha: how far `res` has faded in.
    """
    ...

  def latent_kernels(self, g: Variables) -> list[Float[Array, 'd outputs']]:
    """The kernels [latent, outputs] of the layers that take the latent as input.

    The latent is w in a StyleGAN, z otherwise. A StyleGAN has one kernel for each
    synthesis layer, a BigGAN one for each chunk of z; entries of z that a layer does
    not take have rows of zeros.
    """
    ...

  def standing_statistics(
    self,
    g: Variables,
    z: Float[Array, 'n b dim_z'],
    labels: Int[Array, 'n b'],
  ) -> Variables:
    """g with batch statistics averaged over n batches. Runs under the mesh axis."""
    ...


@functools.lru_cache(16)
def variable_shapes(gan: GAN) -> tuple[Variables, Variables]:
  """Shapes and dtypes of the variables of G and D."""
  return jax.eval_shape(gan.init, jax.random.key(0))


class StyleBased(GAN, Protocol):
  """A family that maps z to w and synthesizes images from one w per layer."""

  @property
  def dim_w(self) -> int: ...

  @property
  def truncated_layers(self) -> int:
    """Number of layers, from the first one, in which psi truncates w."""
    ...

  def layers(self, res: int) -> int:
    """Number of synthesis layers up to a resolution."""
    ...

  def sizes(self, res: int) -> list[Size]:
    """Height and width of each layer's noise up to a resolution."""
    ...

  def w(
    self, g: Variables, z: Float[Array, 'b dim_z'], labels: Num[Array, 'b ...']
  ) -> Float[Array, 'b dim_w']:
    """The mapping network."""
    ...

  def truncate(
    self, g: Variables, w: Float[Array, 'b ... dim_w'], psi: ArrayLike, res: int = 0
  ) -> Float[Array, 'b layers dim_w']:
    """One w per layer, moved towards the average w by psi.

    Args:
      w: [b, dim_w], or one per layer [b, layers, dim_w].
      psi: a scalar, for the first `truncated_layers` layers; or one value per layer.
    """
    ...

  def mix(
    self,
    w: Float[Array, 'b dim_w'],
    w2: Float[Array, 'b dim_w'],
    cutoff: ArrayLike,
    res: int = 0,
  ) -> Float[Array, 'b layers dim_w']:
    """Style mixing: w in the layers below `cutoff`, w2 in the others.

    Args:
      cutoff: a scalar, or one value per example [b].
    """
    ...

  def synthesize(
    self,
    g: Variables,
    ws: Float[Array, 'b layers dim_w'],
    noise: tuple[Array, ...] | None = None,
    *,
    res: int = 0,
    alpha: ArrayLike = 1.0,
  ) -> Float[Array, 'b h w c']:
    """Images from one w per layer.

    Args:
      noise: one [b or 1, h, w, 1] per layer; None: the noise stored with the weights.
    """
    ...

  def with_noise(self, g: Variables, strength: ArrayLike) -> Variables:
    """g with noise strengths multiplied by `strength`, one value or one per layer."""
    ...

  def fresh_noise(self, keys: PRNGKeyArray, res: int) -> tuple[Array, ...]:
    """Noise [b, h, w, 1] of each layer, from one key per example [b]."""
    ...


def apply_network(
  module: nn.Module,
  variables: Variables,
  *args: Any,
  train: bool,
  eps: float = 1e-12,
  iterations: int = 1,
) -> tuple[Any, Variables]:
  """Applies a network with spectrally normalized weights.

  Args:
    train: use batch statistics and update the non-parameter collections.
    eps: lower bound of the vector norms in the power iteration.
    iterations: power iterations in training. Evaluation does one from the stored u
      and discards the result.

  Returns:
    The output of the network and its updated variables; outside training the variables
    are the given ones.
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
  out, updated = module.apply(
    used, *args, train=True, mutable=['batch_stats', 'moving']
  )
  return out, {**variables, **updated, 'spectral': spectral}


def to_float(
  images: Num[Array, '*b h w c'], dtype: DTypeLike = jnp.float32
) -> Float[Array, '*b h w c']:
  """Converts uint8 0..255 to [-1, 1]; floats only change their dtype."""
  if jnp.issubdtype(images.dtype, jnp.floating):
    return images.astype(dtype)
  return images.astype(dtype) / 127.5 - 1


def to_uint8(images: Float[Array, '*b h w c']) -> UInt8[Array, '*b h w c']:
  """Converts [-1, 1] to 0..255, rounded and clipped."""
  return jnp.clip(jnp.round((images + 1) * 127.5), 0, 255).astype(jnp.uint8)


def example_keys(key: PRNGKeyArray, index: Int[Array, ' b']) -> PRNGKeyArray:
  """One key per global example index [b], independent of the number of devices."""
  return jax.vmap(jax.random.fold_in, (None, 0))(key, index)
