"""Reads the headers of all source images, and finds those that cannot be used."""

import dataclasses
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Int
from tqdm import tqdm

from gan_jax import UserError
from gan_jax.data.decode import (
  MAX_PIXELS,
  UnusableImageError,
  header_size,
  open_image,
  read_span,
)
from gan_jax.data.depth import Ranges, Span, describe_ranges, enclosing_ranges
from gan_jax.data.folder import ImageSource, list_refused
from gan_jax.data.summary import format_counts
from gan_jax.prepare.fit import size_problem
from gan_jax.prepare.options import PrepareOptions, level_name

_N_LISTED = 5  # unusable images in a message; the manifest lists all


@dataclasses.dataclass(frozen=True)
class HeaderSurvey:
  """The headers of all images of a source.

  Attributes:
    source: the images.
    source_name: as the user gave it.
    sizes: (width, height) of each image as it is shown; 0 if its header is unusable.
    modes: PIL mode -> number of images.
    bad_headers: index -> why the header is unusable.
    ranges: of values of more than 8 bits, which contain those of all images; empty
      unless they were measured.
  """

  source: ImageSource
  source_name: str
  sizes: Int[np.ndarray, 'n 2']
  modes: Counter[str]
  bad_headers: dict[int, str]
  ranges: Ranges = dataclasses.field(default_factory=dict)

  @property
  def n_candidates(self) -> int:
    """Number of image files, including those that are never opened."""
    return self.source.n_images + len(self.source.refused)

  def common_side(self) -> int:
    """The shorter side of all images, in pixels.

    Raises:
      UserError: they differ, or it is not a power of two.
    """
    usable = self._usable_sizes()
    if not len(usable):
      raise UserError(no_usable_image(self.source_name))
    shorter = usable.min(axis=1)
    if shorter.min() != shorter.max() or shorter[0] & (shorter[0] - 1):
      raise UserError(
        f'--res is needed: the shorter sides are {shorter.min()} to {shorter.max()} '
        f'pixels with the median {int(np.median(shorter))}; choose a power of two.'
      )
    return int(shorter[0])

  def unusable(self, options: PrepareOptions) -> dict[str, str]:
    """Name -> reason of each image that its header or its path already rules out."""
    reasons = dict(self.source.refused)
    for i, (width, height) in enumerate(self.sizes.tolist()):
      reason = self.bad_headers.get(i) or size_problem(width, height, options)
      if reason:
        reasons[self.source.display_name(i)] = reason
    return reasons

  def describe(self, options: PrepareOptions) -> str:
    """Lines of text: what the source contains, and what would be written."""
    source = self.source
    lines = [
      f'{self.source_name} ({source.kind}): {source.n_images:,} images, '
      f'{source.n_other_files:,} other files'
    ]
    if source.has_vectors:
      raise UserError(
        f'{self.source_name} has label vectors ({source.labels_from}), and a prepared '
        'set holds classes: train on the folder or zip itself, as data.name.'
      )
    if len(source.class_names) and len(source.labels):
      counts = np.bincount(source.labels, minlength=len(source.class_names))
      lines.append(f'labels: {format_counts(source.class_names, counts)}')
      lines.append(f'labels come from {source.labels_from}')
    elif not len(source.class_names):
      lines.append('labels: none')
    if source.ignored:
      lines.append(f'not read: {list_refused(source.ignored, _N_LISTED)}')
    usable = self._usable_sizes()
    if len(usable):
      lines.append(self._describe_sizes(usable))
    levels = ', '.join(map(level_name, options.levels))
    n_pixels = sum(height * width for height, width in options.levels)
    n_bytes = n_pixels * options.channels * source.n_images
    square = options.size[0] == options.size[1]
    lines.append(
      f'output: levels {levels}; channels: {options.channels}; images '
      f'{"that are not square" if square else "of another shape"}: '
      f'{options.fit or "refused"}; up to {n_bytes / 1e9:.2f} GB'
    )
    if ranges := describe_ranges(self.ranges and options.range):
      lines.append(f'{ranges} (--range)')
    if unusable := self.unusable(options):
      listed = list_refused(unusable, _N_LISTED)
      lines.append(f'unusable images: {len(unusable):,}: {listed}')
    return '\n'.join(lines)

  def _describe_sizes(self, usable: Int[np.ndarray, 'm 2']) -> str:
    low, high = usable.min(axis=0), usable.max(axis=0)
    n_oblong = int((usable[:, 0] != usable[:, 1]).sum())
    modes = ', '.join(f'{mode} {count:,}' for mode, count in self.modes.most_common())
    return (
      f'sizes: {low[0]} x {low[1]} to {high[0]} x {high[1]}, {n_oblong:,} not square; '
      f'modes: {modes}'
    )

  def _usable_sizes(self) -> Int[np.ndarray, 'm 2']:
    return self.sizes[self.sizes[:, 0] > 0]


def unusable_images(reasons: dict[str, str], n: int) -> str:
  """Error message: some of n images cannot be used."""
  return (
    f'{len(reasons):,} of {n:,} images cannot be used: '
    f'{list_refused(reasons, _N_LISTED)}; repair them, or pass --skip_bad to leave '
    'them out.'
  )


def no_usable_image(source_name: str) -> str:
  """Error message: none of the images can be used."""
  return f'{source_name} has no image that can be used.'


def survey_headers(
  source: ImageSource,
  source_name: str,
  threads: int,
  *,
  max_pixels: int = MAX_PIXELS,
  measure_ranges: bool = False,
) -> HeaderSurvey:
  """Reads the header of every image.

  Args:
    source: the images.
    source_name: as the user gave it.
    threads: number of threads.
    max_pixels: images that declare more pixels are unusable.
    measure_ranges: decode the images whose values have more than 8 bits, to find their
      range. No pixel of other images is decoded.
  """
  sizes = np.zeros((source.n_images, 2), np.int32)
  modes: Counter[str] = Counter()
  bad_headers: dict[int, str] = {}
  spans: list[Span] = []

  def read_headers(indices: range) -> tuple[int, Counter[str]]:
    modes_read = Counter[str]()
    for i in indices:
      try:
        image = open_image(source.read(i)[0], max_pixels)
        size, mode = header_size(image), image.mode
        if measure_ranges and (span := read_span(image)):
          spans.append(span)
      except UnusableImageError as error:
        bad_headers[i] = str(error)
        continue
      sizes[i] = size
      modes_read[mode] += 1
    return len(indices), modes_read

  n = source.n_images
  chunks = [range(i, min(i + 256, n)) for i in range(0, n, 256)]
  with (
    tqdm(total=n, unit='img', desc='headers', disable=None) as progress,
    ThreadPoolExecutor(threads) as pool,
  ):
    for n_read, modes_read in pool.map(read_headers, chunks):
      progress.update(n_read)
      modes.update(modes_read)
  return HeaderSurvey(
    source,
    source_name,
    sizes,
    modes,
    dict(sorted(bad_headers.items())),
    enclosing_ranges(spans),
  )
