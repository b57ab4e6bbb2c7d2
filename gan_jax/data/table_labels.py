"""Labels of listed images from the label table beside them."""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence

from gan_jax import UserError
from gan_jax.data.decode import UnusableImageError
from gan_jax.data.formats import readable_suffixes
from gan_jax.data.label_tables import (
  ACCEPTED,
  LabelTable,
  is_table,
  may_lack_labels,
  read_label_table,
)
from gan_jax.data.listing import FileList
from gan_jax.data.names import escape_unprintable, normal_form, path_form, suffix_of

_MAX_BYTES = 2**30  # of a table
_N_NAMED = 3  # other tables; there may be one for each image
_OTHER_TABLES = {
  *('.csv', '.json', '.jsonl', '.ods', '.parquet', '.tsv', '.txt', '.xls', '.xlsx'),
}


def find_label_table(
  listing: FileList, folders: Sequence[str]
) -> tuple[str, LabelTable] | None:
  """(name, content) of the label table of a source, if it has one.

  Args:
    listing: the files; tables that are not read are added to `listing.ignored`.
    folders: where a table may lie, from `find_data_folders`.

  Raises:
    UserError: there are several, or it cannot be read.
  """
  candidates = sorted(filter(is_table, listing.files))
  in_place = [n for n in candidates if folder_of(n) in folders]
  if not in_place:  # a table in a folder of its own, beside the folder of images
    apart = [n for n in candidates if not _has_images(listing, folder_of(n))]
    in_place = apart if len(apart) == 1 else []
  sure = [n for n in in_place if not may_lack_labels(n)]
  found: list[tuple[str, LabelTable]] = []
  if len(sure) < 2:
    for name in in_place:
      if table := read_label_table(name, _read(listing, name)):
        found.append((name, table))
        continue
      listing.ignored[escape_unprintable(name)] = 'has no column of labels'
  if len(sure) > 1 or len(found) > 1:
    both = ' and '.join(sure if len(sure) > 1 else [name for name, _ in found])
    raise UserError(f'{listing.path} has both {both}: keep one.')
  for name in sorted(set(candidates) - set(in_place)):
    listing.ignored[escape_unprintable(name)] = 'is not at the top level, and not read'
  return found[0] if found else None


def folder_of(name: str) -> str:
  """The folder of a file: '' or ending with '/'."""
  return name[: name.rfind('/') + 1]


def _has_images(listing: FileList, folder: str) -> bool:
  return any(
    name.startswith(folder) and suffix_of(name) in readable_suffixes()
    for name in listing.files
  )


def _read(listing: FileList, name: str) -> bytes:
  try:
    return listing.read(name, _MAX_BYTES)
  except UnusableImageError as error:
    raise UserError(f'{listing.path}: {name} {error}.') from error


def labels_from_table(
  listing: FileList, images: Sequence[str], table: str, label_of: Mapping[str, str]
) -> dict[str, str]:
  """Image -> label as the table writes it, for images that have one.

  Names in the table are relative to its folder; if none of them fits, to the folder
  that contains all images, or to one of those around it.

  Images without a label and labels without an image are added to `listing.refused`.

  Raises:
    UserError: no image has a label, or an image's label is unclear.
  """
  around = folder_of(os.path.commonprefix(images))
  bases = [folder_of(table), around]
  while around:
    around = folder_of(around[:-1])
    bases.append(around)
  labels, missing = dict[str, str](), list[str]()
  for base in dict.fromkeys(bases):
    if not labels:
      labels, missing = _match_table(table, label_of, images, base)
  if not labels:
    first = next(iter(label_of), None)
    names = 'names no file' if first is None else f'names {escape_unprintable(first)}'
    raise UserError(
      f'{listing.path}: {table} has no label for any of the {len(images)} images: it '
      f'{names}, and the first image is {escape_unprintable(images[0])}.'
    )
  for name in missing:
    listing.refuse(name, f'is listed in {table}, but does not exist')
  for name in images:
    if name not in labels:
      listing.refuse(name, f'has no label in {table}')
  return labels


def _match_table(
  table: str, label_of: Mapping[str, str], images: Sequence[str], folder: str
) -> tuple[dict[str, str], list[str]]:
  """(image -> label, names in the table that are no image).

  A name fits an image if both are equal as written, else as paths, else in Unicode
  composition and case of the suffix, else, for a name without the suffix of an image,
  without the image's suffix.

  Args:
    table: its name, for messages.
    label_of: name in the table -> label, both as written.
    images: names relative to the data.
    folder: that the names in the table are relative to.

  Raises:
    UserError: a name fits several images, or an image has two labels.
  """
  exact = {n.removeprefix(folder): n for n in images if n.startswith(folder)}
  loose: dict[str, list[str]] = {}
  labels: dict[str, str] = {}
  missing = []
  for name, label in label_of.items():
    fits = [exact[name]] if name in exact else []
    if not fits and (path := path_form(name)) in exact:
      fits = [exact[path]]
    if not fits:
      loose = loose or _loose_names(exact)
      fits = loose.get(normal_form(name), []) or loose.get(
        normal_form(name.strip()), []
      )
    if len(fits) > 1:
      files = ' and '.join(escape_unprintable(n) for n in fits[:3])
      raise UserError(
        f'{table}: {escape_unprintable(name)} fits {len(fits)} images, {files}: write '
        'the names as the files have them.'
      )
    if not fits:
      missing.append(name)
    elif labels.setdefault(fits[0], label) != label:
      raise UserError(f'{table}: {escape_unprintable(fits[0])} has two labels.')
  return labels, missing


def _loose_names(exact: Mapping[str, str]) -> dict[str, list[str]]:
  """Normal form, with and without the suffix of an image -> images."""
  loose: dict[str, list[str]] = defaultdict(list)
  for name, image in exact.items():
    normal = normal_form(name)
    loose[normal].append(image)
    stem = normal.removesuffix(suffix_of(name))
    if suffix_of(stem) not in readable_suffixes():
      loose[stem].append(image)
  return dict(loose)


def name_unread_tables(listing: FileList, folders: Sequence[str]) -> None:
  """Adds tables that are not read, beside images of one class, to `listing.ignored`.

  Raises:
    UserError: one of them is called labels, but is of an unknown kind.
  """
  others = sorted(
    name
    for name in listing.files
    if suffix_of(name) in _OTHER_TABLES
    and folder_of(name) in folders
    and not is_table(name)
  )
  for name in others:
    if name.rsplit('/', 1)[-1].lower().startswith(('labels.', 'label.')):
      raise UserError(
        f'{listing.path} has no classes, but {escape_unprintable(name)}, which is not '
        f'read: save it as labels.csv ({ACCEPTED}), or take it away.'
      )
  tables = [name for name in others if suffix_of(name) != '.txt']
  for name in tables[:_N_NAMED]:
    listing.ignored[escape_unprintable(name)] = (
      'is not read; a table of labels is called labels.csv'
    )
