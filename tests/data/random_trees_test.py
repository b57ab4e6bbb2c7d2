"""Random trees: every file is used or left out, and labels are those of the source."""

import csv
import dataclasses
import io
import json
import unicodedata
import zipfile

import numpy as np
import pytest
from PIL import Image

from gan_jax.data.dataset import decode_and_resize
from gan_jax.data.folder import open_folder_or_zip
from gan_jax.data.names import escape_unprintable
from tests.data.images import encode, write_files

N_TREES = 12
WORDS = (
  *(
    'cat',
    'Cat',
    'caf\u00e9',
    'cafe\u0301s',
    'a b',
    ' x',
    'y ',
    'v1.2',
    '\u732b',
    'dot.',
  ),
  *(
    'it,s',
    '"q"',
    "o'",
    'semi;colon',
    '\U0001f600',
    '-1',
    '007',
    'tab\tbed',
    '100%',
    '#1',
  ),
  *('new\nline', '~', 'photo (2)', '\u00e5\u0308', 'A\u030a', '\u1e9e', '\u0130'),
)
MODES = {
  '.png': ('1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'I;16'),
  '.jpg': ('L', 'RGB', 'CMYK'),
  '.jfif': ('RGB',),
  '.JPE': ('RGB',),
  '.gif': ('L', 'P'),
  '.webp': ('RGB', 'RGBA'),
  '.bmp': ('1', 'L', 'RGB'),
  '.tiff': ('L', 'RGB', 'CMYK', 'I;16'),
}
KINDS = {'.jpg': 'JPEG', '.jfif': 'JPEG', '.jpe': 'JPEG'}
SYSTEM = ('@eaDir', '.thumbnails', '__MACOSX', '$RECYCLE.BIN', '.ipynb_checkpoints')


@dataclasses.dataclass
class Tree:
  """Files, and what is expected of them.

  Attributes:
    files: name -> content, with '/' and the case and composition of the file system.
    labels: name -> label, of the images that are used; None if there are no labels.
    refused: names of the images that are not used.
    n_other: number of files that are no images of the data.
    n_tables: 1 if there is a label table.
  """

  files: dict[str, bytes] = dataclasses.field(default_factory=dict)
  labels: dict[str, str | None] = dataclasses.field(default_factory=dict)
  refused: set[str] = dataclasses.field(default_factory=set)
  n_other: int = 0
  n_tables: int = 0


def random_content(rng, suffix):
  mode = str(rng.choice(MODES[suffix]))
  if mode == 'I;16':
    return encode(rng.integers(0, 2**16, (6, 9), np.uint16), _kind(suffix))
  image = Image.fromarray(rng.integers(0, 256, (6, 9, 4), np.uint8), 'RGBA')
  return encode(image.convert('RGB').convert(mode), _kind(suffix))


def _kind(suffix):
  return KINDS.get(suffix.lower(), suffix[1:].upper())


def random_names(rng, n):
  """Different names, also after composition and without their case."""
  names = {}
  while len(names) < n:
    name = ''.join(rng.choice(WORDS, rng.integers(1, 4)))
    names.setdefault(unicodedata.normalize('NFC', name).casefold(), name)
  return list(names.values())


def random_suffix(rng):
  suffix = str(rng.choice(list(MODES)))
  change = [str, str.upper, str.capitalize][rng.integers(3)]
  return suffix, change(suffix)


def random_tree(rng, layout):
  tree = Tree()
  by_number = rng.integers(2)
  folders = [str(i) for i in (2, 10, 1)] if by_number else random_names(rng, 3)
  for stem in random_names(rng, 24):
    suffix, written = random_suffix(rng)
    folder = str(rng.choice(folders))
    name = stem + written if layout == 'flat' else f'{folder}/{stem}{written}'
    tree.files[name] = random_content(rng, suffix)
    tree.labels[name] = None if layout == 'flat' else folder
  add_other_files(rng, tree, '' if layout == 'flat' else f'{folders[0]}/')
  if layout == 'table':
    add_table(rng, tree)
  elif layout == 'splits':
    put_into_splits(rng, tree)
  return tree


def add_other_files(rng, tree, folder):
  for i, suffix in enumerate(rng.choice(['.svg', '.PSD', '.tga'], 3)):
    tree.refused.add(f'{folder}unread{i}{suffix}')
  tree.files |= dict.fromkeys(tree.refused, b'?')
  tree.files[f'{folder}no suffix'] = encode(np.zeros((4, 4), np.uint8))
  tree.refused.add(f'{folder}no suffix')
  others = ['notes.txt', f'{folder}.hidden.png', f'{folder}Thumbs.db']
  others += [f'{folder}{system}/deep/x.png' for system in rng.choice(SYSTEM, 2)]
  tree.files |= dict.fromkeys(others, b'?')
  tree.n_other += len(set(others))


def add_table(rng, tree):
  """Labels for most of the images, in a table of a random form."""
  names = list(tree.labels)
  numbers = rng.integers(2)
  for name in names:
    word = str(rng.integers(5)) if numbers else f'l{rng.choice(WORDS[:20])}'
    tree.labels[name] = unicodedata.normalize('NFC', word).strip()
  for name in rng.choice(names, rng.integers(4), replace=False):
    tree.refused.add(str(name))
    del tree.labels[str(name)]
  rows = [(spell(rng, name), label) for name, label in tree.labels.items()]
  rng.shuffle(rows)
  if numbers and rng.integers(2):
    rows = [(name, f'{label}.0') for name, label in rows]
  kind = str(rng.choice(['labels.csv', 'dataset.json', 'labels.jsonl', 'Labels.CSV']))
  tree.files[kind] = write_table(rng, kind, rows)
  tree.n_tables = 1


def spell(rng, name):
  """A name as another system would write it."""
  form = str(rng.choice(['NFC', 'NFD']))
  name = unicodedata.normalize(form, name)
  if rng.integers(2):
    name = f'./{name}'
  if rng.integers(2):
    name = name.replace('/', '\\')
  stem, dot, suffix = name.rpartition('.')
  return name if rng.integers(2) else stem + dot + suffix.swapcase()


def write_table(rng, kind, rows):
  if kind == 'dataset.json':
    as_dict = rng.integers(2)
    return json.dumps({'labels': dict(rows) if as_dict else rows}).encode()
  columns = [
    ('file', 'label'),
    ('file_name', 'Class'),
    ('Image', 'category'),
    ('id', 'target'),
  ][rng.integers(4)]
  if kind == 'labels.jsonl':
    lines = [json.dumps(dict(zip(columns, row)), ensure_ascii=False) for row in rows]
    return '\n'.join(lines).encode()
  text = io.StringIO()
  writer = csv.writer(text, delimiter=',;\t|'[rng.integers(4)])
  writer.writerows([columns, *rows])
  encoding = ('utf-8', 'utf-8-sig', 'utf-16')[rng.integers(3)]
  return text.getvalue().encode(encoding)


def put_into_splits(rng, tree):
  """The tree becomes the split train; other splits are copies of its images."""
  around = ('', 'all/')[rng.integers(2)]
  moved = Tree(n_other=tree.n_other)
  for name, content in tree.files.items():
    moved.files[name if name == 'notes.txt' else f'{around}train/{name}'] = content
  for name, label in tree.labels.items():
    moved.labels[f'{around}train/{name}'] = label
    moved.files[f'{around}val/{name}'] = tree.files[name]
    moved.n_other += 1
  moved.refused = {f'{around}train/{name}' for name in tree.refused}
  tree.__dict__.update(moved.__dict__)


def write_random_zip(rng, path, files):
  """The files as entries in a random order, with separators of Windows or '/'."""
  backslashes = rng.integers(2)
  with zipfile.ZipFile(path, 'w') as archive:
    for name in rng.permutation(list(files)).tolist():
      entry = name.replace('/', '\\') if backslashes else f'./{name}'
      archive.writestr(entry, files[name])


@pytest.mark.parametrize('layout', ['flat', 'folders', 'table', 'splits'])
def test_all_files_are_used_or_left_out(tmp_path, rng_seed, layout):
  for number in range(N_TREES):
    rng = np.random.default_rng([rng_seed, number])
    tree = random_tree(rng, layout)
    root = tmp_path / f'{number}'
    write_files(root, tree.files)
    write_random_zip(rng, tmp_path / f'{number}.zip', tree.files)
    folder, archive = map(open_folder_or_zip, (root, tmp_path / f'{number}.zip'))
    check_source(folder, tree)
    check_source(archive, tree)
    for key in ('class_names', 'n_images', 'refused', 'ignored', 'labels_from'):
      assert getattr(folder, key) == getattr(archive, key)
    names = [[s.display_name(i) for i in range(s.n_images)] for s in (folder, archive)]
    assert names[0] == names[1] and folder.labels.tolist() == archive.labels.tolist()


def check_source(source, tree):
  shown = {escape_unprintable(name): name for name in tree.files}
  used = [shown[source.display_name(i)] for i in range(source.n_images)]
  assert sorted(used) == sorted(tree.labels)
  assert source.refused.keys() == set(map(escape_unprintable, tree.refused))
  assert source.n_other_files == tree.n_other
  n_left_out = len(source.refused) + source.n_other_files + tree.n_tables
  assert source.n_images + n_left_out == len(tree.files)
  assert all([*source.refused.values(), *source.ignored.values()])
  for i, name in enumerate(used):
    content, label = source.read(i)
    assert content == tree.files[name] and label == source.labels[i]
    assert decode_and_resize(content, 4, 3).shape == (4, 4, 3)
    stated = tree.labels[name]
    if stated is None:
      assert label == 0 and source.class_names == ()
    else:
      stated = unicodedata.normalize('NFC', stated)
      assert source.class_names[label] == escape_unprintable(stated)
  check_order(source.class_names)


def check_order(names):
  if names and all(name.isdecimal() for name in names):
    assert list(names) == sorted(names, key=int)
  else:
    assert [n for n in names if n.isascii()] == sorted(n for n in names if n.isascii())
