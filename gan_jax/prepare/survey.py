"""What the headers of all pictures say, and which do not fit what is asked for."""

import dataclasses
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from tqdm import tqdm

from gan_jax import UserError
from gan_jax.data import decode, folder, summary
from gan_jax.data.decode import UnreadableImage
from gan_jax.data.folder import ImageSource

SMALLEST = 4  # the lowest level
_NAMED = 5  # damaged pictures named in a message; all are in the manifest


@dataclasses.dataclass(frozen=True)
class Options:
  """What decides the bytes that are written."""

  res: int
  channels: int
  fit: str  # 'crop', 'pad' or '': only squares
  upscale: bool
  background: tuple[int, int, int]
  png_level: int
  shard_images: int

  @property
  def levels(self) -> list[int]:
    """Resolutions, the full one first."""
    return [self.res >> i for i in range((self.res // SMALLEST).bit_length())]


@dataclasses.dataclass(frozen=True)
class Survey:
  """What the headers of all pictures say.

  Attributes:
    sizes: int32 [n, 2], width and height; 0 where there is no usable header.
    modes: PIL mode -> pictures.
    bad: index -> why its header is refused.
  """

  sizes: np.ndarray
  modes: Counter[str]
  bad: dict[int, str]

  def common_side(self, src: str) -> int:
    """The side of all pictures.

    Raises:
      UserError: they differ.
    """
    good = self.sizes[self.sizes[:, 0] > 0]
    if not len(good):
      raise UserError(f'{src} has no picture that can be used.')
    shorter = good.min(axis=1)
    if shorter.min() != shorter.max() or shorter[0] & (shorter[0] - 1):
      raise UserError(
        f'--res is needed: the shorter sides are {shorter.min()} to {shorter.max()} '
        f'pixels, half of them up to {int(np.median(shorter))}; take a power of two.'
      )
    return int(shorter[0])

  def unusable(self, source: ImageSource, options: Options) -> dict[str, str]:
    """Name -> why, of all that is known to be refused without decoding it."""
    bad = dict(source.refused)
    for i, (width, height) in enumerate(self.sizes.tolist()):
      if i in self.bad:
        bad[source.title(i)] = self.bad[i]
      elif why := misfit(width, height, options):
        bad[source.title(i)] = why
    return bad

  def describe(self, src: str, source: ImageSource, options: Options) -> str:
    """What there is and what would be made of it, for a terminal."""
    good = self.sizes[self.sizes[:, 0] > 0]
    modes = ', '.join(f'{mode} {count:,}' for mode, count in self.modes.most_common())
    bad = self.unusable(source, options)
    lines = [
      f'{src} ({source.kind}): {source.n:,} pictures, {source.others:,} other files',
    ]
    if len(source.class_names) and len(source.labels):
      counts = np.bincount(source.labels, minlength=len(source.class_names))
      lines.append(f'labels: {summary.histogram_line(source.class_names, counts)}')
    elif not len(source.class_names):
      lines.append('labels: none')
    if len(good):
      small, large = good.min(axis=0), good.max(axis=0)
      lines += [
        f'sizes: {small[0]} x {small[1]} to {large[0]} x {large[1]}, '
        f'{int((good[:, 0] != good[:, 1]).sum()):,} of them oblong; modes: {modes}',
      ]
    levels = ', '.join(map(str, options.levels))
    size = sum(side**2 for side in options.levels) * options.channels * source.n
    lines.append(
      f'to be written: levels {levels}; {options.channels} channels; '
      f'oblong ones: {options.fit or "refused"}; up to {size / 1e9:.2f} GB'
    )
    if bad:
      lines.append(f'cannot be used: {len(bad):,}: {folder.quote_some(bad, _NAMED)}')
    return '\n'.join(lines)


def misfit(width: int, height: int, options: Options) -> str:
  """Why a picture of that size is refused; '' if it is not."""
  if width != height and not options.fit:
    return f'is {width} x {height}, not square (--crop or --pad)'
  side = max(width, height) if options.fit == 'pad' else min(width, height)
  if side < options.res and not options.upscale:
    return f'is {width} x {height}, below {options.res} (--upscale or a lower --res)'
  return ''


def refusal(bad: dict[str, str], n: int) -> str:
  return (
    f'{len(bad):,} of {n:,} pictures cannot be used: {folder.quote_some(bad, _NAMED)}; '
    'mend them, or pass --skip_bad to leave them out.'
  )


def survey(source: ImageSource, threads: int) -> Survey:
  """Reads the header of every picture."""
  sizes = np.zeros((source.n, 2), np.int32)
  modes: Counter[str] = Counter()
  bad: dict[int, str] = {}

  def look(part):
    found = Counter[str]()
    for i in part:
      try:
        image = decode.open_image(source.read(i)[0])
      except UnreadableImage as error:
        bad[i] = str(error)
        continue
      sizes[i] = image.size  # turned or not: only the shorter and longer side matter
      found[image.mode] += 1
    return len(part), found

  parts = [range(i, min(i + 256, source.n)) for i in range(0, source.n, 256)]
  with (
    tqdm(total=source.n, unit='img', desc='headers', disable=None) as bar,
    ThreadPoolExecutor(threads) as pool,
  ):
    for done, found in pool.map(look, parts):
      bar.update(done)
      modes.update(found)
  return Survey(sizes, modes, dict(sorted(bad.items())))
