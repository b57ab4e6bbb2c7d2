"""Which folder of a source holds its data: splits and single folders around it."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from gan_jax import UserError
from gan_jax.data.formats import readable_suffixes
from gan_jax.data.label_tables import is_table
from gan_jax.data.listing import FileList
from gan_jax.data.names import escape_unprintable, suffix_of

_SPLIT_WORDS = {  # word in the name of a folder -> split
  **dict.fromkeys(('train', 'training', 'trainset', 'trainingset'), 'train'),
  **dict.fromkeys(('val', 'valid', 'validation', 'valset', 'dev'), 'validation'),
  **dict.fromkeys(('test', 'testing', 'testset'), 'test'),
  **dict.fromkeys(('eval', 'evaluation', 'evalset'), 'evaluation'),
}
_SPLIT_AND_CLASS = re.compile(  # trainA, test_cats
  r'(?P<split>(?i:train|training|val|valid|validation|test|testing))(?=[A-Z\d._-])'
)
_FILLERS = {'data', 'dataset', 'folder', 'images', 'image', 'img', 'imgs', 'set'}


def is_image(name: str) -> bool:
  """Whether a file's name ends like that of an image that is read."""
  return suffix_of(name) in readable_suffixes()


def find_data_folders(listing: FileList, split: str) -> list[str]:
  """The folder with the classes or images, last, and those around it.

  They are '' or end with '/'. Single folders that contain everything else are
  skipped. Of the splits around the data the one that `split` names is taken, and the
  others are moved to `listing.ignored`.

  Raises:
    UserError: no such split, or images beside the splits.
  """
  names = [n for n in listing.files if is_image(n) or is_table(n)]
  images = [n for n in names if is_image(n)]
  folders = ['']
  while not (splits := split_folders(images, folders[-1])):
    if not (only := _common_folder(names, folders[-1])):
      break
    folders.append(only)
  if not splits:
    if split != 'train':
      raise UserError(f"{listing.path} has only the split 'train', not '{split}'.")
    return folders
  outer = folders[-1]
  chosen = choose_split(listing.path, splits, split)
  _leave_out_beside(listing, outer, chosen, splits)
  inner = f'{outer}{chosen}/'
  folders.append(inner)
  inside = [n for n in names if n.startswith(inner)]
  while only := _common_folder(inside, folders[-1]):
    folders.append(only)
  return folders


def _common_folder(names: Sequence[str], prefix: str) -> str:
  """'faces/' if that folder contains all files and is not itself a class, else ''."""
  paths = [n.removeprefix(prefix) for n in names]
  tops = {p.split('/')[0] for p in paths}
  depths = {p.count('/') for p in paths}
  has_table = any(p.count('/') == 1 and is_table(p) for p in paths)
  if len(tops) == 1 and 0 not in depths and (has_table or min(depths) > 1):
    return f'{prefix}{tops.pop()}/'
  return ''


def split_of(folder: str) -> str:
  """The split that a folder's name means: 'validation' for 'val'; '' if none."""
  words = set(re.split(r'[\s._-]+', folder.lower())) - _FILLERS
  return _SPLIT_WORDS.get(words.pop(), '') if len(words) == 1 else ''


def split_folders(images: Sequence[str], prefix: str) -> dict[str, str]:
  """Sub-folders of `prefix` -> their splits, if they are splits, not classes.

  'train' alone is a class like any other: only beside another split, or if it holds
  everything, or holds folders, is it a split.

  Raises:
    UserError: a sub-folder may be a split, a class, or both.
  """
  depths: dict[str, set[int]] = defaultdict(set)
  for name in images:
    folder, slash, rest = name.removeprefix(prefix).partition('/')
    if slash:
      depths[folder].add(rest.count('/'))
  _check_split_classes(sorted(depths))
  splits = {folder: split for folder in depths if (split := split_of(folder))}
  if len(splits) > 1 or len(splits) == len(depths):
    return splits
  for folder in splits:
    if 0 not in depths[folder]:
      other = next(f for f in sorted(depths) if f != folder)
      raise UserError(
        f'{prefix}{folder} holds folders of images beside {prefix}{other}: move the '
        'other folders away if it is a split, or rename it if it is a class.'
      )
  return {}


def _check_split_classes(folders: Sequence[str]) -> None:
  """Raises a UserError if all folders are parts of splits: trainA, trainB, testA."""
  starts = [_SPLIT_AND_CLASS.match(folder) for folder in folders]
  splits = {_SPLIT_WORDS[s['split'].lower()] for s in starts if s}
  if all(starts) and len(splits) > 1 and not any(map(split_of, folders)):
    raise UserError(
      f'The folders {", ".join(map(escape_unprintable, folders[:6]))} are splits and '
      'classes in one name: make folders of the splits, with those of the classes '
      'inside (train/A, test/A), or give one split as the dataset.'
    )


def choose_split(path: str, splits: Mapping[str, str], split: str) -> str:
  """The one of the `splits`, a folder, that `split` names.

  Raises:
    UserError: there is none, or several.
  """
  wanted = split_of(split) or split
  chosen = [f for f in splits if f == split] or [
    f for f, meaning in splits.items() if meaning == wanted
  ]
  if len(chosen) == 1:
    return chosen[0]
  if len(splits) == 1 and split == 'train':
    return next(iter(splits))  # the name of an archive's only folder
  found = ', '.join(map(escape_unprintable, splits))
  several = f', of which {len(chosen)} fit' if chosen else ''
  raise UserError(
    f"{path} has the splits {found}{several}, but data.split is '{split}': set "
    'data.split (--split of gan_jax.prepare) to one of them.'
  )


def _leave_out_beside(
  listing: FileList, outer: str, chosen: str, splits: Mapping[str, str]
) -> None:
  """Moves all folders with images beside the chosen split to `listing.ignored`.

  Raises:
    UserError: there are images beside the splits.
  """
  beside: dict[str, list[str]] = defaultdict(list)
  for name in listing.files:
    folder, slash, _ = name.removeprefix(outer).partition('/')
    if slash and folder != chosen:
      beside[folder].append(name)
    elif not slash and is_image(name):
      raise UserError(
        f'{listing.path} has images beside its splits {", ".join(sorted(splits))} '
        f'({escape_unprintable(name)}): move them into one.'
      )
  for folder, names in beside.items():
    if n_images := sum(map(is_image, names)):
      kind = 'is another split than' if folder in splits else 'is no split, as is'
      reason = f'{kind} {chosen}/ ({n_images} images)'
      listing.ignore_listed(names, f'{outer}{folder}/', reason)
