"""Opens a dataset by the name that a config gives it."""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from absl import logging

from gan_jax import UserError
from gan_jax.data.built_in import BUILT_IN, load_built_in
from gan_jax.data.dataset import Dataset, ImageFiles
from gan_jax.data.decode import PIL_MODES, UnusableImageError, open_image, read_span
from gan_jax.data.depth import (
  AUTO,
  Ranges,
  Span,
  describe_ranges,
  enclosing_ranges,
  fixed_ranges,
)
from gan_jax.data.digests import source_digests
from gan_jax.data.folder import ImageSource, is_path, list_refused, open_folder_or_zip
from gan_jax.data.prepared import load_prepared, read_manifest
from gan_jax.data.set_copy import open_files
from gan_jax.data.summary import evenly_spaced, source_sizes
from gan_jax.data.tfds_source import (
  METADATA,
  is_tfds_name,
  load_tfds,
  load_tfds_folder,
  tfds_data_dir,
)
from gan_jax.runtime.image_size import Size, as_size, format_size, smaller
from gan_jax.runtime.urls import is_url

_MAX_LEFT_OUT = 0.1  # of the images of a folder or zip
_RANGE_SAMPLE = 256  # images read to find the range of values of more than 8 bits
_THREADS = 8


def load_dataset(
  name: str,
  *,
  split: str = 'train',
  data_dir: str | None = None,
  cache: str | None = None,
  res: int | Size,
  channels: int,
  upscale: bool = False,
  skip_bad: bool = False,
  value_range: str = AUTO,
) -> Dataset:
  """Opens a dataset of images uint8 [h, w, channels].

  Args:
    name: one of
      - 'emoji', 'digits' or 'synthetic';
      - a path (/a, ./a, ~/a or a.zip) of a set prepared by gan_jax.prepare, or of a
        folder or zip of images; a folder that exists needs no './', unless it has
        the name of one of the other sets;
      - a URL (gs://bucket/a, s3://bucket/a) of a set prepared by gan_jax.prepare or
        by tensorflow-datasets, which is copied to `cache`;
      - the name of a prepared tensorflow-datasets set: 'cifar10', 'lsun/church',
        'my_set:1.0.0'.
    split: 'train'; of a folder or zip the name of one of its splits, if it has some;
      prepared and tensorflow-datasets sets accept any split expression, such as
      'train[:90%]'.
    data_dir: folder or URL of the tensorflow-datasets sets; default: $TFDS_DATA_DIR,
      else ~/tensorflow_datasets.
    cache: folder that a prepared set is copied to and read from; default:
      $GAN_JAX_CACHE/data for sets in stores, none for others.
    res: height and width of the images in pixels; a number: the side of square ones.
      Images of another shape are cropped to their centered part of this shape;
      prepared ones are refused.
    channels: 1 (grey), 3 (RGB) or 4 (RGBA), at most as many as the images have.
    upscale: upsample images that are smaller. Otherwise a dataset most of
      whose images are smaller is an error; built-in datasets are always resized.
    skip_bad: read the next image in place of one that cannot be decoded, and log a
      warning. Otherwise reading it raises CorruptImageError. It also allows a folder
      or zip of which more than a tenth of the images is left out.
    value_range: which values of images with more than 8 bits become 0..255, in a folder
      or zip: 'auto' (the range that a sample of the set uses), 'image' (that of each
      image), 'full' (that of the type) or two numbers, '0,4095'.

  Raises:
    UserError: the dataset is unknown, not prepared, or empty; its images are unusable
      or too small, or have too few channels; too many are left out; a package is
      missing; an argument is out of range; the set cannot be copied to `cache`.
  """
  size = _check_shape(res, channels)
  ranges = fixed_ranges(value_range, 'data.range')
  dataset = _open(name, split, data_dir, cache, size, channels, ranges, skip_bad)
  if not upscale:
    _check_sizes(dataset, size)
  return dataset.skip_corrupt() if skip_bad else dataset


def _open(
  name: str,
  split: str,
  data_dir: str | None,
  cache: str | None,
  size: Size,
  channels: int,
  ranges: Ranges | None,
  skip_bad: bool,
) -> Dataset:
  """Opens what `name` means; see `load_dataset`."""
  if name in BUILT_IN:
    _refuse_cache(cache, f'{name} is built in')
    return load_built_in(name, split, size, channels)
  folder = tfds_data_dir(data_dir)
  if Path(name).is_dir() and not is_path(name) and not is_tfds_name(name, folder):
    name = f'./{name}'
  source = open_files(name if is_path(name) else f'{folder}/{name}', cache)
  if (manifest := read_manifest(source)) is not None:
    return load_prepared(source, manifest, split, size, channels)
  if is_url(name) or is_path(name) and _is_tfds_folder(name):
    return load_tfds_folder(source, split, size, channels)
  if is_path(name):
    images = _open_folder_or_zip(name, split, skip_bad)
    found = f'{name} is a {images.kind} of images'
    _refuse_cache(cache, found, 'prepare it with gan_jax.prepare, or ')
    return _make_dataset(name, images, size, channels, ranges)
  return load_tfds(name, split, data_dir, cache, size, channels)


def _check_shape(res: int | Size, channels: int) -> Size:
  """Height and width; raises a UserError if there are no such images."""
  if channels not in PIL_MODES:
    raise UserError(
      f'model.channels is {channels}: 1 (grey), 3 (RGB) and 4 (RGBA) are allowed.'
    )
  size = as_size(res)
  if not all(isinstance(n, int) and n > 0 for n in size):
    raise UserError(f'res must be a positive number of pixels, not {res!r}.')
  return size


def _refuse_cache(cache: str | None, found: str, next_step: str = '') -> None:
  if cache:
    raise UserError(
      f'data.cache={cache} is for copies of prepared sets, but {found}: {next_step}'
      'leave out data.cache.'
    )


def _is_tfds_folder(path: str) -> bool:
  return (Path(os.path.expanduser(path)) / METADATA[0]).is_file()


def _check_sizes(dataset: Dataset, size: Size) -> None:
  """Raises a UserError if most images are smaller than `size`."""
  found = [(height, width) for width, height in source_sizes(dataset)]
  n_small = sum(smaller(one, size) for one in found)
  if 2 * n_small > len(found):
    square = size[0] == size[1]
    model = f'model.res is {size[0]}' if square else f'images have {format_size(size)}'
    median = f'the shorter side: {int(np.median([min(one) for one in found]))}'
    if not square:
      median = format_size(tuple(np.median(found, axis=0).astype(int)))
    raise UserError(
      f"{model}, but most images of dataset '{dataset.name}' are smaller "
      f'(median of {median} pixels): set a '
      'lower model.res, or data.upscale=True to upsample them.'
    )


def _open_folder_or_zip(name: str, split: str, skip_bad: bool) -> ImageSource:
  """Opens the images; raises a UserError if more than a tenth of them is left out."""
  source = open_folder_or_zip(name, split)
  if source.ignored:
    logging.warning('%s: not read: %s.', name, list_refused(source.ignored))
  n_left_out, n_images = len(source.refused), source.n_images + len(source.refused)
  if _MAX_LEFT_OUT * n_images < n_left_out and not skip_bad:
    raise UserError(
      f'{name}: {n_left_out:,} of {n_images:,} images would be left out, more than '
      f'{_MAX_LEFT_OUT:.0%}: {count_reasons(source.refused)}; repair or remove them, '
      'or set data.skip_bad=True to train without them.'
    )
  if source.refused:
    logging.warning('%s: files left out: %s.', name, count_reasons(source.refused))
  return source


def count_reasons(refused: Mapping[str, str], limit: int = 3) -> str:
  """Why images are left out: '4 like a.heic (is of the format HEIF, ...), 1 like ...'.

  Args:
    refused: name of an image -> reason.
    limit: number of different reasons that are listed, the most frequent ones.
  """
  names: dict[str, list[str]] = {}
  for name, reason in refused.items():
    names.setdefault(reason, []).append(name)
  by_count = sorted(names.items(), key=lambda item: -len(item[1]))
  parts = [f'{len(n):,} like {n[0]} ({reason})' for reason, n in by_count[:limit]]
  if n_others := sum(len(n) for _, n in by_count[limit:]):
    parts.append(f'{n_others:,} for other reasons')
  return ', '.join(parts)


def _sample_ranges(source: ImageSource, name: str) -> Ranges:
  """The ranges of values that a sample of the images with more than 8 bits uses."""

  def read(i: int) -> Span | None:
    try:
      return read_span(open_image(source.read(i)[0]))
    except UnusableImageError:  # reported when the image is read
      return None

  indices = evenly_spaced(source.n_images, _RANGE_SAMPLE).tolist()
  with ThreadPoolExecutor(_THREADS) as threads:
    spans = [span for span in threads.map(read, indices) if span]
  ranges = enclosing_ranges(spans)
  if ranges:
    logging.info(
      '%s: %s, as in a sample of %d such images; data.range sets the range.',
      *(name, describe_ranges(ranges), len(spans)),
    )
  return ranges


def _make_dataset(
  name: str, source: ImageSource, size: Size, channels: int, ranges: Ranges | None
) -> Dataset:
  if ranges is None:
    ranges = _sample_ranges(source, name)
  counts: tuple[int, ...] = ()
  if source.class_names and not source.has_vectors:
    counts = tuple(np.bincount(source.labels, minlength=len(source.class_names)))
  origin = (
    f'{source.kind}, {len(source.refused)} image files left out, '
    f'{source.n_other_files} other files; labels from {source.labels_from}'
  )
  return Dataset(
    name,
    ImageFiles(name, source, size, channels, ranges),
    source.class_names,
    tuple(int(count) for count in counts),
    '; '.join(filter(None, [origin, describe_ranges(ranges)])),
    source_digests(source, ranges),
    source.has_vectors,
  )
