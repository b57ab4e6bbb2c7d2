"""Settings of StyleGAN: which are allowed, and the networks they describe."""

import dataclasses

from gan_jax import UserError
from gan_jax.models import progressive
from gan_jax.models.base import Blocks, Network
from gan_jax.models.first_map import check_first_map, first_map_key
from gan_jax.models.progressive import ProgressiveDiscriminator
from gan_jax.models.stylegan_networks import Mapping, Synthesis
from gan_jax.runtime.image_size import Size
from gan_jax.runtime.keys import REQUIRED, check_ranges, key


@dataclasses.dataclass(frozen=True)
class StyleGANConfig(progressive.ProgressiveGAN):
  """Fields are the keys of a config's model section.

  Widths are the channels at 1x1, 4x4, 8x8, ...; empty for the paper's. Rows of table 1
  of the paper: B is `mapping_layers=0, styles=False, const=False, noise=False,
  instance_norm=False, g_norm=True, mixing=0`; C adds mapping, styles and instance norm;
  D the constant; E noise; F mixing. With classes the label selects the output of D that
  is the score.

  Raises:
    UserError: no network has such a resolution or so many widths; an unknown loss.
  """

  res: int = key(
    REQUIRED, 'side of the images in pixels, a power of two; see first_map'
  )
  n_classes: int = key(
    0, 'number of classes, or length of label vectors; 0: unconditional', at_least=0
  )
  fake_labels: str = key(
    'data',
    "labels of the fakes in G's step: 'data', those of the iteration's real images, or "
    "'uniform' over the classes",
    choices=('data', 'uniform'),
  )
  channels: int = key(
    3, 'of the images: 1 (grey), 3 (RGB) or 4 (RGBA)', at_least=1, at_most=4
  )
  first_map: tuple[int, ...] = first_map_key()
  dim_z: int = key(512, 'length of the latent vector z', at_least=1)
  dim_w: int = key(512, 'length of the intermediate latent vector w', at_least=1)
  g_widths: tuple[int, ...] = key(
    (), "channels of G at 1x1, 4x4, 8x8, ...; (): the paper's", at_least=1
  )
  d_widths: tuple[int, ...] = key(
    (), "channels of D at 1x1, 4x4, 8x8, ...; (): the paper's", at_least=1
  )
  mapping_layers: int = key(8, 'layers of the mapping network; 0: w is z', at_least=0)
  mapping_width: int = key(
    512, 'width of the hidden layers of the mapping network', at_least=1
  )
  mapping_lrmul: float = key(
    0.01, 'learning rate of the mapping network, relative', above=0
  )
  normalize_z: bool = key(True, 'pixel norm of z before the mapping network')
  styles: bool = key(True, 'w modulates each layer; False: w is only the input of G')
  const: bool = key(True, 'G starts from a learned constant instead of w')
  noise: bool = key(True, 'noise is added in each layer')
  g_norm: bool = key(False, 'pixel norm after each activation of G')
  instance_norm: bool = key(True, 'instance norm before each style')
  g_blur: tuple[int, ...] = key((1, 2, 1), 'filter of G after upsampling; (): none')
  d_blur: tuple[int, ...] = key((1, 2, 1), 'filter of D before downsampling; (): none')
  g_relu: bool = key(False, 'ReLU in the synthesis network instead of leaky ReLU')
  mapping_relu: bool = key(False, 'ReLU in the mapping network instead of leaky ReLU')
  d_relu: bool = key(False, 'ReLU in D instead of leaky ReLU')
  equalized: bool = key(True, 'equalized learning rate')
  mbstd_group: int = key(
    4, 'group size of the minibatch standard deviation; 1: none', at_least=0
  )
  mbstd_features: int = key(
    1, 'features of the minibatch standard deviation', at_least=1
  )
  mixing: float = key(
    0.9, 'probability of style mixing in training', at_least=0, at_most=1
  )
  mixing_groups: int = key(
    1,
    'groups of a batch with a style mixing cutoff of their own, by turns of '
    "mbstd_group images; 1: one cutoff; the original's has one per GPU",
    at_least=1,
  )
  w_avg_beta: float = key(
    0.995, 'decay of the moving average of w, for truncation', at_least=0, at_most=1
  )
  truncation_psi: float = key(0.7, 'psi of samples where none is given')
  truncated_layers: int = key(8, 'first layers whose w is truncated by psi', at_least=0)
  loss: str = key(
    'logistic',
    "'logistic': non-saturating with R1; 'wgan': WGAN-GP",
    choices=('logistic', 'wgan'),
  )
  r1_gamma: float = key(10.0, 'weight of the R1 penalty', at_least=0)
  gp_weight: float = key(10.0, 'weight of the gradient penalty (WGAN-GP)', at_least=0)
  drift: float = key(
    1e-3, 'weight of the squared score of real images (WGAN-GP)', at_least=0
  )
  dtype: str = key(
    'float32',
    'of activations and convolutions; float64 needs JAX_ENABLE_X64=1',
    choices=('float32', 'bfloat16', 'float64'),
  )
  bfloat16_from: int = key(
    0,
    'resolution from which the layers of G and D use bfloat16, whatever the dtype; '
    '0: none',
    at_least=0,
  )

  def __post_init__(self) -> None:
    check_ranges('model', self)
    check_first_map(self.first_map)
    progressive.check_resolutions(
      self.res, {'g_widths': self.g_widths, 'd_widths': self.d_widths}
    )
    for name in ('g_blur', 'd_blur'):
      taps = getattr(self, name)
      if taps and not sum(taps):
        raise UserError(f'model.{name} is {taps}: its sum, which scales it, is 0.')

  def blocks_of(self, network: Network) -> Blocks:
    """The layers of each resolution; the mapping network is in none."""
    blocks = super().blocks_of(network)
    if network == 'd':
      return blocks
    start: tuple[str, ...] = ('const', 'dense')
    return tuple(
      tuple(
        f'synthesis/{name}'
        for name in (
          *(() if i else start),
          *names,
          f'layer{2 * i}',
          f'layer{2 * i + 1}',
        )
      )
      for i, names in enumerate(blocks)
    )

  @property
  def mapping(self) -> Mapping:
    last = (self.dim_w,) if self.mapping_layers else ()
    return Mapping(
      widths=(self.mapping_width,) * (self.mapping_layers - 1) + last,
      normalize_z=self.normalize_z,
      lrmul=self.mapping_lrmul,
      relu=self.mapping_relu,
      equalized=self.equalized,
      dtype=self.dtype,
    )

  @property
  def synthesis(self) -> Synthesis:
    return Synthesis(
      res=self.res,
      widths=(self.g_widths or progressive.published_widths(self.res))[1:],
      channels=self.channels,
      first_map=self.first_map,
      styles=self.styles,
      const=self.const,
      pixel_norm=self.g_norm,
      instance_norm=self.instance_norm,
      blur=self.g_blur,
      relu=self.g_relu,
      equalized=self.equalized,
      dtype=self.dtype,
      bfloat16_from=self.bfloat16_from,
    )

  @property
  def discriminator(self) -> ProgressiveDiscriminator:
    return ProgressiveDiscriminator(
      res=self.res,
      widths=self.d_widths or progressive.published_widths(self.res),
      outputs=max(self.n_classes, 1),
      group=self.mbstd_group,
      features=self.mbstd_features,
      blur=self.d_blur,
      relu=self.d_relu,
      equalized=self.equalized,
      dtype=self.dtype,
      bfloat16_from=self.bfloat16_from,
    )

  def layers(self, res: int) -> int:
    """Number of synthesis layers up to a resolution."""
    return 2 * res.bit_length() - 4

  def sizes(self, res: int) -> list[Size]:
    """Height and width of each layer's noise up to a resolution; [] without noise."""
    n = self.layers(res) if self.noise else 0
    return [self.size(4 << i // 2) for i in range(n)]
