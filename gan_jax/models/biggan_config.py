"""Settings of BigGAN: which are allowed, and the networks they describe."""

import dataclasses
import re
from functools import partial
from typing import NamedTuple

from gan_jax import UserError
from gan_jax.models.base import Blocks, Network
from gan_jax.models.biggan_networks import (
  D_WIDTHS,
  FINAL_MAP,
  G_WIDTHS,
  INITS,
  Discriminator,
  Generator,
)
from gan_jax.models.first_map import ImageSize, check_first_map, first_map_key
from gan_jax.nn.norms import BatchStatistics
from gan_jax.runtime.keys import REQUIRED, check_ranges, key


class DeepBlock(NamedTuple):
  """One entry of `g_blocks`."""

  up: bool
  width: int  # in units of g_ch
  attention: bool


def parse_blocks(texts: tuple[str, ...]) -> list[DeepBlock] | None:
  """Parses `g_blocks`: '8', 'up 4' (upsamples) or 'up 4 attention'; None: malformed."""
  pattern = r'(?P<up>up )?(?P<width>[1-9]\d{0,3})(?P<attention> attention)?'
  matches = [re.fullmatch(pattern, text) for text in texts]
  if None in matches:
    return None
  return [
    DeepBlock(bool(m['up']), int(m['width']), bool(m['attention']))
    for m in matches
    if m
  ]


@dataclasses.dataclass(frozen=True)
class BigGANConfig(ImageSize):
  """The keys of a config's model section.

  Widths are in units of `g_ch` and `d_ch`; empty for the published ones of the
  resolution. G has one for the 4x4 map and one per doubling, D one per block. Attention
  follows the blocks whose output has one of the given resolutions.

  Raises:
    UserError: no network has such a size or combination of options.
  """

  res: int = key(
    REQUIRED, 'side of the images in pixels, a power of two; see first_map'
  )
  n_classes: int = key(
    0, 'number of classes, or length of label vectors; 0: unconditional', at_least=0
  )
  fake_labels: str = key(
    'uniform',
    "labels of fakes: 'uniform' over the classes, or 'data', those of the iteration's "
    'real images',
    choices=('data', 'uniform'),
  )
  channels: int = key(
    3, 'of the images: 1 (grey), 3 (RGB) or 4 (RGBA)', at_least=1, at_most=4
  )
  first_map: tuple[int, ...] = first_map_key()
  dim_z: int = key(128, 'length of the latent vector z', at_least=1)
  shared_dim: int = key(
    128, 'length of the shared class embedding; 0: an embedding per norm', at_least=0
  )
  hier: bool = key(True, 'each block of G gets a chunk of z of its own')
  g_ch: int = key(64, 'unit of the widths of G, in channels', at_least=1)
  d_ch: int = key(64, 'unit of the widths of D, in channels', at_least=1)
  g_widths: tuple[int, ...] = key(
    (),
    'of G at 4x4 and after each doubling, in units of g_ch; (): published',
    at_least=1,
  )
  d_widths: tuple[int, ...] = key(
    (), "of D's blocks, in units of d_ch; (): published", at_least=1
  )
  g_attention: tuple[int, ...] = key(
    (), 'resolutions of G that attention follows', at_least=1
  )
  d_attention: tuple[int, ...] = key(
    (), 'resolutions of D that attention follows', at_least=1
  )
  depth: int = key(0, 'blocks per stage: 2 gives BigGAN-deep, 0 BigGAN', at_least=0)
  g_blocks: tuple[str, ...] = key(
    (), "other blocks for BigGAN-deep's G: a width, then 'up 4 attention', ..."
  )
  d_wide: bool = key(True, "the first conv of D's blocks has the width of their output")
  split_d: bool = key(False, 'D sees fakes and reals in two passes instead of one')
  bn_eps: float = key(1e-5, 'added to the variance in batch norm', at_least=0)
  rgb_bn_eps: float = key(
    1e-5, 'the same for the last norm, which BigGAN-PyTorch keeps at 1e-5', at_least=0
  )
  bn_momentum: float = key(
    0.1, 'weight of a batch in the moving statistics', at_least=0, at_most=1
  )
  bn_ddof: int = key(
    1, '1: unbiased variance in the moving statistics; 0: biased', at_least=0, at_most=1
  )
  bn_group: int = key(
    0, 'number of devices that share batch statistics; 0: all', at_least=0
  )
  sn_eps: float = key(
    1e-12, 'smallest norm that spectral normalization divides by', at_least=0
  )
  g_sn_iterations: int = key(1, 'power iterations per step of G', at_least=0)
  d_sn_iterations: int = key(1, 'power iterations per step of D', at_least=0)
  stats_rows: int = key(0, 'rows of batch statistics as a table over psi; 0: no table')
  g_sn_vectors: int = key(
    1, 'singular values of G followed, the first normalizes; 0: none', at_least=0
  )
  d_sn_vectors: int = key(
    1, 'singular values of D followed, the first normalizes; 0: none', at_least=0
  )
  g_init: str = key('ortho', 'initial weights of G: ortho, N02 or xavier')
  d_init: str = key('ortho', 'initial weights of D: ortho, N02 or xavier')
  remat: bool = key(False, 'recompute activations in the backward pass, to save memory')
  dtype: str = key(
    'float32',
    'of activations and convolutions; float64 needs JAX_ENABLE_X64=1',
    choices=('float32', 'bfloat16', 'float64'),
  )

  def __post_init__(self) -> None:
    check_ranges('model', self)
    check_first_map(self.first_map)
    self._check_widths()
    self._check_latents()
    self._check_blocks()
    self._check_inits()

  @property
  def _doublings(self) -> int:
    """How often G upsamples, from 4x4 to the final resolution."""
    return self.res.bit_length() - 3

  def _check_widths(self) -> None:
    if self.res < 16 or self.res & (self.res - 1):
      raise UserError(
        f'model.res is {self.res}: BigGAN needs a power of two from 16 up.'
      )
    tables = (
      ('g_widths', self.g_widths, G_WIDTHS),
      ('d_widths', self.d_widths, D_WIDTHS),
    )
    for name, widths, published in tables:
      if not widths and self.res not in published:
        known = ', '.join(map(str, published))
        raise UserError(
          f'model.{name} is empty and no widths are published for model.res='
          f'{self.res}: give them, or take one of {known}.'
        )
    n = self._doublings
    if self.g_widths and len(self.g_widths) != n + 1:
      raise UserError(
        f'model.g_widths has {len(self.g_widths)} entries: model.res={self.res} needs '
        f'{n + 1}, for 4x4 and each of {n} doublings.'
      )

  def _check_latents(self) -> None:
    chunks = self._doublings + 1
    if self.hier and not self.depth and self.dim_z % chunks:
      raise UserError(
        f'model.dim_z={self.dim_z} does not split into {chunks} equal chunks for '
        f'model.hier at model.res={self.res}: take a multiple of {chunks}.'
      )
    if self.hier and self.n_classes and not self.shared_dim:
      raise UserError(
        'model.hier needs model.shared_dim above 0, or model.n_classes=0: a chunk '
        'of z is joined to the shared class embedding.'
      )

  def _check_blocks(self) -> None:
    blocks = parse_blocks(self.g_blocks)
    if blocks is None or (blocks and not self.depth):
      raise UserError(
        f'model.g_blocks is {self.g_blocks}: with model.depth=2 a width, then blocks '
        "such as '8', 'up 4' or 'up 4 attention'."
      )
    ups = sum(block.up for block in blocks[1:])
    if blocks and ups != self._doublings:
      raise UserError(
        f'model.g_blocks upsamples {ups} times, but model.res={self.res} needs '
        f'{self._doublings}.'
      )
    if self.stats_rows == 1 or self.stats_rows < 0:
      raise UserError(f'model.stats_rows is {self.stats_rows}: 0, or 2 and more.')
    if self.depth and not self.hier:
      raise UserError('model.depth (BigGAN-deep) needs model.hier=True.')

  def _check_inits(self) -> None:
    for name, value in (('g_init', self.g_init), ('d_init', self.d_init)):
      if value not in INITS:
        raise UserError(f'model.{name} is {value!r}: allowed are {", ".join(INITS)}.')

  @property
  def generator(self) -> Generator:
    widths, deep, attention = self._generator_shape()
    statistics = partial(
      BatchStatistics,
      momentum=self.bn_momentum,
      ddof=self.bn_ddof,
      group=self.bn_group,
    )
    return Generator(
      widths=widths,
      deep=deep,
      channels=self.channels,
      first_map=self.first_map,
      n_classes=self.n_classes,
      shared_dim=self.shared_dim,
      hier=self.hier,
      attention=attention,
      stats=partial(statistics, self.bn_eps),
      rgb_stats=partial(statistics, self.rgb_bn_eps),
      init_kernel=self.g_init,
      remat=self.remat,
      dtype=self.dtype,
    )

  def _generator_shape(
    self,
  ) -> tuple[tuple[int, ...], tuple[tuple[bool, int], ...], tuple[int, ...]]:
    """`widths`, `deep` and `attention` of the generator."""
    if self.g_blocks:
      first, *blocks = parse_blocks(self.g_blocks) or []
      deep = tuple((block.up, self.g_ch * block.width) for block in blocks)
      widths = (self.g_ch * first.width, *(width for _, width in deep))
      return widths, deep, tuple(i for i, b in enumerate(blocks) if b.attention)
    widths = tuple(self.g_ch * w for w in self.g_widths or G_WIDTHS[self.res])
    sizes = [8 << i for i in range(len(widths) - 1)]
    attention = tuple(i for i, s in enumerate(sizes) if s in self.g_attention)
    deep = ()
    if self.depth:
      for before, after in zip(widths, widths[1:], strict=False):
        deep += ((False, before),) * (self.depth - 1) + ((True, after),)
      attention = tuple(self.depth * (i + 1) - 1 for i in attention)
    return widths, deep, attention

  @property
  def discriminator(self) -> Discriminator:
    units = self.d_widths or D_WIDTHS[self.res]
    blocks = len(units) - bool(self.depth)
    final = 4 if self.d_widths else FINAL_MAP.get(self.res, 4)
    downs = min((self.res // final).bit_length() - 1, blocks)
    sizes = [self.res >> min(i + 1, downs) for i in range(blocks)]
    return Discriminator(
      widths=tuple(self.d_ch * w for w in units),
      downs=downs,
      depth=self.depth,
      n_classes=self.n_classes,
      wide=self.d_wide,
      attention=tuple(i for i, s in enumerate(sizes) if s in self.d_attention),
      init_kernel=self.d_init,
      remat=self.remat,
      dtype=self.dtype,
    )

  def blocks_of(self, network: Network) -> Blocks:
    """The layers of each block; attention belongs to the block before it."""
    if network == 'g':
      n = len(self.generator.deep) or len(self.generator.widths) - 1
      blocks = tuple((f'block{i}', f'attention{i}') for i in range(n))
      return (('linear',), *blocks[:-1], (*blocks[-1], 'norm', 'rgb'))
    n = len(self.discriminator.widths) - bool(self.depth)
    stages = tuple((f'block{i}', f'block{i}_*', f'attention{i}') for i in range(n))
    return (('stem', *stages[0]), *stages[1:])

  @property
  def block_sizes(self) -> tuple[int, ...]:
    """4 of the first layer, then the resolution of each block's output."""
    deep = self.generator.deep
    ups = [up for up, _ in deep] if deep else [True] * self._doublings
    return tuple(4 << sum(ups[:i]) for i in range(len(ups) + 1))
