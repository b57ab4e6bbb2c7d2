"""Which real images are scored, in which order, and which process reads them."""

import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Int

from gan_jax import UserError, data
from gan_jax.config import Config
from gan_jax.config.workdir import read_data_record
from gan_jax.data.dataset import InMemoryExamples
from gan_jax.data.digests import digest, identity
from gan_jax.evaluation.metrics import transparency
from gan_jax.models.base import GAN
from gan_jax.runtime.image_size import Size


def images_stamp(gan: GAN, res: int) -> dict[str, Any]:
  """What a model's images are, in the protocol of a score, as JSON."""
  return {**_size_stamp(gan.size(res)), 'channels': gan.channels}


def _size_stamp(size: Size) -> dict[str, Any]:
  """The side of square images as `res`, else height and width as `size`."""
  return {'res': size[0]} if size[0] == size[1] else {'size': list(size)}


def without_images(gan: GAN, name: str) -> data.Dataset:
  """A dataset without images, for metrics that need none."""
  images = np.zeros((0, *gan.size(), gan.channels), np.uint8)
  return data.Dataset(name, InMemoryExamples(images, np.zeros(0, np.int32)))


def load_real_images(
  folder: Path,
  config: Config,
  split: str,
  name: str | None = None,
  sets: Path | str | None = None,
  cache: Path | None = None,
) -> data.Dataset:
  """The images that a run is scored against; notes if they are not its training data.

  Args:
    folder: workdir of the run.
    name: path, URL or name of a dataset; None: that of the config.
    sets: folder or URL of tensorflow-datasets sets; None: that of the config.
    cache: folder of copied sets; None: that of the config for the data of the config.

  Raises:
    UserError: as `data.load_dataset`; names --data if the data of the run are missing.
  """
  source = config.source(split)
  if name:
    source['name'] = name
  if sets:
    source['data_dir'] = str(sets)
  if cache or name or sets:
    source['cache'] = str(cache) if cache else None
  try:
    dataset = data.load_dataset(**source)
  except data.MissingDataError as error:
    if name:
      raise
    tfds = '' if data.is_path(source['name']) else ' or --data_dir=DIR'
    raise UserError(
      f'{str(error).rstrip(".")}; if the data of this run have moved, name them with '
      f'--data=NEW{tfds}.'
    ) from error
  if split == config.data.split:
    changes = data.find_changes(read_data_record(folder), dataset)
    if changes:
      sentence = f'not the data that the run began with: {"; ".join(changes)}'
      print(f'note: {sentence}', file=sys.stderr)
  return dataset


def real_order(total: int, n: int) -> Int[np.ndarray, ' n']:
  """Indices of the n real images that are used; the same in every call.

  Shuffled, because datasets are often sorted by class.
  """
  return np.random.Generator(np.random.Philox(0)).permutation(total)[:n]


def flipped(total: int) -> Bool[np.ndarray, ' total']:
  """Which of all real images are flipped, if half of them are: a draw for each."""
  return np.random.Generator(np.random.Philox(1)).random(total) < 0.5


def read_batches(
  dataset: data.Dataset,
  order: Int[np.ndarray, ' n'],
  batch: int,
  threads: int = 8,
  mirror: bool = False,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Yields images uint8 [n, h, w, c] and labels int32 [n] with n <= batch.

  Args:
    order: indices of the images.
    mirror: flip the images that `flipped` selects.
  """
  flips = flipped(len(dataset.examples)) if mirror else None
  with ThreadPoolExecutor(threads) as pool:
    for start in range(0, len(order), batch):
      indices = [int(i) for i in order[start : start + batch]]
      examples = pool.map(dataset.examples.__getitem__, indices)
      images, labels = zip(*examples, strict=True)
      stacked = np.stack(images)
      if flips is not None:
        flip = flips[indices][:, None, None, None]
        stacked = np.where(flip, stacked[:, :, ::-1], stacked)
      yield stacked, _classes(labels)


def _classes(labels: Sequence[data.Label]) -> Int[np.ndarray, ' n']:
  """Class labels; 0 for label vectors, which are of no class."""
  return np.array([0 if np.ndim(label) else label for label in labels], np.int32)


def process_share(items: np.ndarray, batch: int) -> np.ndarray:
  """The consecutive batches of `items` that this process handles.

  The shares of all processes, in order, are `items`. All but the last batch are full.
  """
  processes = jax.process_count()
  batches = -(-len(items) // batch)
  start, end = (
    batch * (batches * (jax.process_index() + i) // processes) for i in (0, 1)
  )
  return items[start:end]


def dataset_stamp(dataset: data.Dataset, split: str) -> dict[str, Any]:
  """What identifies the real images in the protocol of a score, as JSON.

  `files` covers all images, see `gan_jax.data.digests`, and is the same for copies of
  the data; `content` covers the decoded pixels of 64 images.
  """
  *size, channels = dataset.examples[0][0].shape
  stamp = {
    'data': dataset.name,
    'split': split,
    **_size_stamp((size[0], size[1])),
    'channels': channels,
    'content': _content(dataset),
  }
  if files := identity(dataset.digests):
    stamp['files'] = digest(sorted(files.items()))
  return stamp | (transparency.STAMP if channels == 4 else {})


def real_images_stamp(
  dataset: data.Dataset, stamp: Mapping[str, Any]
) -> dict[str, Any]:
  """What cached statistics of the real images depend on, as JSON.

  An image that is edited in place has another modification time or checksum. Where the
  data are plays no role, if their files are known.

  Args:
    stamp: of `dataset_stamp`.
  """
  kept = {k: v for k, v in stamp.items() if k != 'data' or not dataset.digests}
  return {**kept, 'digests': dict(sorted(dataset.digests.items()))}


def _content(dataset: data.Dataset) -> str:
  """Hash of a dataset's size, number of classes, and 64 of its labeled images."""
  total = len(dataset.examples)
  sha = hashlib.sha256(f'{total} {dataset.n_classes}'.encode())
  for i in np.linspace(0, total - 1, min(64, total)).astype(int):
    image, label = dataset.examples[int(i)]
    sha.update(np.ascontiguousarray(image).tobytes())
    sha.update(str(np.asarray(label)).encode())
  return sha.hexdigest()[:16]
