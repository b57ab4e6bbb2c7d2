"""Batches of images in one endless global order that all hosts share."""

import dataclasses
import functools
import sys
from collections.abc import Iterator

import grain
import numpy as np
from jaxtyping import Bool, Int

from gan_jax import UserError
from gan_jax.data.dataset import Dataset, Examples

Batch = dict[str, np.ndarray]  # 'images' and 'labels'


def iterate_batches(
  dataset: Dataset,
  *,
  shape: tuple[int, int],
  devices: tuple[int, ...],
  n_devices: int,
  seed: int,
  start: int,
  flip: bool,
  threads: int = 8,
) -> Iterator[Batch]:
  """Iterates over this host's batches of the global order of images, endlessly.

  The image at a position of the global order, and whether it is flipped, are a
  function of (dataset, seed, position) alone. Every epoch is a new permutation. With
  shape = (k, b) a step consumes the next k * n_devices * b positions; image i of
  device j in micro-batch m is at offset (m * n_devices + j) * b + i of them.

  `start` is the complete state of the iterator: a run resumes from it exactly, on any
  number of devices and with any shape.

  Args:
    dataset: the images.
    shape: (k micro-batches per step, b images per device and micro-batch).
    devices: positions of this host's devices in the mesh, each in 0..n_devices-1.
    n_devices: number of devices of all hosts.
    seed: 0..2**64-1.
    start: number of images that all hosts together have consumed, >= 0.
    flip: flip each image left-right with probability 1/2.
    threads: number of reader threads; each reads one micro-batch of a device at a time.

  Yields:
    'images' uint8 [len(devices), k, b, h, w, channels] and
    'labels' int32 [len(devices), k, b], or label vectors float32 [..., n].

  Raises:
    UserError: `devices` has duplicates or is out of range.
    CorruptImageError: while iterating, an image cannot be decoded.
  """
  if len(set(devices)) < len(devices) or not set(devices) <= set(range(n_devices)):
    raise UserError(
      f'This host would read for devices {devices}: distinct numbers in 0 to '
      f'{n_devices - 1} are needed.'
    )
  shard = _HostShard(shape, devices, n_devices)
  reader = _OrderReader(dataset.examples, seed, flip)
  # The next step is read while this one trains; a larger buffer only costs memory.
  options = grain.ReadOptions(
    num_threads=threads, prefetch_buffer_size=max(threads, 2 * shard.n_rows)
  )
  rows = (
    grain.MapDataset.range(sys.maxsize)
    .map(lambda row: reader.read(start + shard.offset(row), shape[1]))
    .to_iter_dataset(options)
  )
  return iter(rows.batch(shard.n_rows, batch_fn=shard.stack))


@dataclasses.dataclass(frozen=True)
class _HostShard:
  """Which images of the global order one host reads, in rows.

  A row is one micro-batch of one device. A step of the host has n_rows rows; row
  i * k + m of a step is micro-batch m of devices[i].

  Attributes:
    shape: (k micro-batches per step, b images per device and micro-batch).
    devices: positions of this host's devices in the mesh.
    n_devices: number of devices of all hosts.
  """

  shape: tuple[int, int]
  devices: tuple[int, ...]
  n_devices: int

  @property
  def n_rows(self) -> int:
    return len(self.devices) * self.shape[0]

  def offset(self, row: int) -> int:
    """Number of images in the global order before the first one of `row`."""
    k, b = self.shape
    step, row_of_step = divmod(row, self.n_rows)
    i, micro_batch = divmod(row_of_step, k)
    return ((step * k + micro_batch) * self.n_devices + self.devices[i]) * b

  def stack(self, rows: list[Batch]) -> Batch:
    """Stacks the rows of a step into arrays [len(devices), k, b, ...]."""
    if len(rows) == 1:
      return {key: x[None, None] for key, x in rows[0].items()}
    n_devices, k = len(self.devices), self.shape[0]
    stacked = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
    return {key: x.reshape(n_devices, k, *x.shape[1:]) for key, x in stacked.items()}


def epoch_order(
  seed: int, epoch: int, n_images: int
) -> tuple[Int[np.ndarray, ' n_images'], Bool[np.ndarray, ' n_images']]:
  """Index and flip of the image at each position of an epoch.

  One random word per image gives both: sorting the words shuffles the images, and
  their lowest bits decide the flips. NumPy guarantees that the raw stream of Philox
  never changes. This costs 9 bytes per image and 0.1 us to sort it; Grain's shuffle
  and random_map took 22 us per image while holding the interpreter's lock.
  """
  key = np.array([seed, epoch], np.uint64)
  words = np.random.Philox(key=key).random_raw(n_images)
  return np.argsort(words), words & 1 == 1


class _OrderReader:
  """Reads consecutive positions of the global order. Safe to call from many threads."""

  def __init__(self, examples: Examples, seed: int, flip: bool):
    self._examples, self._flip = examples, flip
    self._n_images = len(examples)
    self._epoch_order = functools.lru_cache(maxsize=4)(
      lambda epoch: epoch_order(seed, epoch, self._n_images)
    )

  def read(self, position: int, n: int) -> Batch:
    """Reads n examples, the first of them at `position`.

    Returns:
      'images' uint8 [n, h, w, channels] and 'labels' int32 [n] or, of label
      vectors, float32 [n, n_classes].
    """
    examples, n_images = self._examples, self._n_images
    images, labels = None, np.empty(n, np.int32)
    for i in range(n):
      epoch, place = divmod(position + i, n_images)
      order, flips = self._epoch_order(epoch)
      image, label = examples[int(order[place])]
      if images is None:
        images = np.empty((n, *image.shape), np.uint8)
        if np.ndim(label):
          labels = np.empty((n, *np.shape(label)), np.float32)
      labels[i] = label
      if self._flip and flips[place]:
        _copy_flipped(image, images[i])
      else:
        images[i] = image
    assert images is not None
    return {'images': images, 'labels': labels}


def _copy_flipped(image: np.ndarray, out: np.ndarray) -> None:
  """Copies an image [h, w, c], flipped left-right, into `out`.

  By channel: NumPy reverses c long rows faster than many rows of c numbers.
  """
  for channel in range(image.shape[-1]):
    out[..., channel] = image[:, ::-1, channel]
