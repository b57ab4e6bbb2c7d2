"""Networks that the user names: files of exported JAX functions.

A network takes images, 0 to 255, and returns one row of numbers per image. Resizing and
normalization belong to the network, so that the digest of its file, which is part of a
score's protocol, covers all of it.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, export
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from gan_jax import UserError
from gan_jax.evaluation.metrics.feature_network import (
  Extractor,
  FeatureNetwork,
  make_extractor,
)
from gan_jax.runtime.image_size import Size, format_side
from gan_jax.runtime.mesh import AXIS
from gan_jax.sampling.export import read_exported

IMAGES = 'images, uint8 or float32 [batch, height, width, channels] in 0..255'


class NamedNetwork(NamedTuple):
  """A network from a file, ready to be compiled."""

  name: str  # of the file
  digest: str  # SHA-256 of the file
  dim: int  # numbers per image
  batch: int  # images per call; 0: any number
  side: int  # pixels of the images that it takes; 0: any
  channels: int  # 0: any
  dtype: Any  # of the images
  call: Callable[[Array], Array]

  @property
  def stamp(self) -> dict[str, str]:
    """For the protocol of a score."""
    return {'network': self.name, 'weights': self.digest}

  def check_images(self, size: Size, channels: int) -> None:
    """Checks that the network takes images of a height and width.

    Larger images are averaged over boxes of pixels. A grey image is repeated if the
    network takes three channels.

    Raises:
      UserError: it does not.
    """
    if self.channels not in (0, channels) and (channels, self.channels) != (1, 3):
      raise UserError(
        f'{self.name} takes images of {self.channels} channels, and those of this '
        f'model have {channels}.'
      )
    shown, square = format_side(size), size[0] == size[1]
    if self.side and (not square or size[0] % self.side):
      divisor = f'{shown} pixels or a divisor, or for ' if square else ''
      raise UserError(
        f'{self.name} takes images of {self.side} pixels, and those of this model have '
        f'{shown}: export it for {divisor}images of any size.'
      )

  def apply(self, images: Array) -> Array:
    """Features float32 [n, dim] of images uint8 [n, h, w, c]."""
    n, h, w, c = images.shape
    x = images.astype(jnp.float32)
    if self.side and h != self.side:
      factor = h // self.side
      x = x.reshape(n, self.side, factor, self.side, factor, c).mean((2, 4))
    if c == 1 and self.channels == 3:
      x = jnp.broadcast_to(x, (*x.shape[:3], 3))
    if jnp.issubdtype(self.dtype, jnp.integer):
      x = jnp.round(x)
    return self.call(x.astype(self.dtype)).astype(jnp.float32)

  def extractor(self, mesh: Mesh, batch: int) -> Extractor:
    """Compiles the network for images of one batch size, sharded over the mesh.

    Args:
      batch: images per call, unless the file fixes their number per device.
    """

    def apply(variables: None, images: Array) -> tuple[Array, Array]:
      del variables
      rows = self.apply(images)
      return rows, rows[:, :0]

    # Each device calls the function by itself, with the number of images it may fix.
    per_device = jax.shard_map(
      apply, mesh=mesh, in_specs=(P(), P(AXIS)), out_specs=P(AXIS), check_vma=False
    )
    return make_extractor(per_device, None, mesh, self.batch * mesh.size or batch)

  def feature_network(self, mesh: Mesh, batch: int) -> FeatureNetwork:
    """The network as a source of features."""
    return FeatureNetwork(
      self.name, self.dim, 0, self.stamp, self.extractor(mesh, batch)
    )


class NamedNetworks(NamedTuple):
  """The networks that the user names."""

  features: NamedNetwork | None = None
  classifiers: tuple[NamedNetwork, ...] = ()


NO_NETWORKS = NamedNetworks()


def read_networks(features: Path | None, classifiers: Sequence[Path]) -> NamedNetworks:
  """Reads the files of a feature network and of classifiers, as `read_network`."""
  return NamedNetworks(
    read_network(features, 'features') if features else None,
    tuple(read_network(path, 'logits') for path in classifiers),
  )


def read_network(path: Path, what: str) -> NamedNetwork:
  """Reads a file that `jax.export` wrote. Compiles nothing.

  Args:
    what: what the network returns for each image, for messages: 'features' or 'logits'.

  Raises:
    UserError: the file is missing, is no exported function, or its function does not
      take images or does not return rows of numbers; or a package is not installed.
  """
  content, exported = read_exported(
    path,
    f'{path} is no exported JAX function: write it with jax.export.export(...) and '
    'serialize().',
  )
  _check_platform(path, exported)
  batch, side, channels, dtype = _check_input(path, exported)
  return NamedNetwork(
    name=path.name,
    digest=hashlib.sha256(content).hexdigest(),
    dim=_check_output(path, exported, what),
    batch=batch,
    side=side,
    channels=channels,
    dtype=dtype,
    call=lambda images: jax.tree.leaves(exported.call(images))[0],
  )


def _check_platform(path: Path, exported: export.Exported) -> None:
  here = jax.default_backend()
  here = 'cuda' if here == 'gpu' else here
  if here not in exported.platforms:
    raise UserError(
      f'{path} was exported for {", ".join(exported.platforms)}, and this is {here}: '
      f'export it with platforms=[{here!r}].'
    )


def _size(dimension: Any) -> int:
  """A dimension of a shape; 0 if it is symbolic."""
  return dimension if isinstance(dimension, int) else 0


def _shapes(values: Any) -> str:
  shapes = [f'{x.dtype} [{", ".join(map(str, x.shape))}]' for x in values]
  return ', '.join(shapes) or 'nothing'


def _check_input(path: Path, exported: export.Exported) -> tuple[int, int, int, Any]:
  """Batch, side and channels, 0 for any, and the dtype of the images."""
  inputs = exported.in_avals
  shape: Any = inputs[0].shape if len(inputs) == 1 else ()
  square = len(shape) == 4 and str(shape[1]) == str(shape[2])
  # Symbols of height and width may differ: images are square anyway.
  square = square or len(shape) == 4 and not (_size(shape[1]) and _size(shape[2]))
  if not square or inputs[0].dtype not in (np.uint8, np.float32):
    raise UserError(
      f'{path} takes {_shapes(inputs)}, and it must take one array: {IMAGES}.'
    )
  side = _size(shape[1]) or _size(shape[2])
  return _size(shape[0]), side, _size(shape[3]), inputs[0].dtype


def _check_output(path: Path, exported: export.Exported, what: str) -> int:
  """Numbers per image."""
  outputs = exported.out_avals
  shape: Any = outputs[0].shape if len(outputs) == 1 else ()
  rows = len(shape) == 2 and str(shape[0]) == str(exported.in_avals[0].shape[0])
  floating = rows and jnp.issubdtype(outputs[0].dtype, jnp.floating)
  if not floating or not _size(shape[1]):
    raise UserError(
      f'{path} returns {_shapes(outputs)}, and it must return {what}, one row of '
      'floats per image: [batch, numbers].'
    )
  return _size(shape[1])
