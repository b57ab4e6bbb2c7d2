"""Label tables beside the images: labels.csv, dataset.json of NVIDIA's tools, ...

A table is read as spreadsheets and other tools write it, or refused with what it has.
"""

import contextlib
import csv
import dataclasses
import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gan_jax import UserError
from gan_jax.data.names import compose, escape_unprintable

_CSV, _LINES, _JSON = 'csv', 'jsonl', 'json'
TABLES = {  # name in lower case -> how it is written
  'labels.csv': _CSV,
  'labels.tsv': _CSV,
  'labels.jsonl': _LINES,
  'labels.json': _JSON,
  'dataset.json': _JSON,  # NVIDIA's dataset_tool.py
  'metadata.csv': _CSV,  # Hugging Face's image folders; without labels they are
  'metadata.jsonl': _LINES,  # captions or the like, and no label table
}
# Names of columns, without case, spaces and punctuation. Earlier groups come first;
# two columns of one group are ambiguous.
_FILE_COLUMNS = (
  ('file',),
  (
    *('filename', 'filepath', 'path', 'relativepath', 'imagefile', 'imagefilename'),
    *('imagepath', 'imgfile', 'imgpath'),
  ),
  ('image', 'imagename', 'img', 'imgname'),
  ('id', 'imageid', 'imgid'),
)
_LABEL_COLUMNS = (
  ('label',),
  (
    *('category', 'categoryid', 'categoryname', 'class', 'classid', 'classlabel'),
    *('classname', 'labelid', 'labelname', 'target', 'targetname', 'y'),
  ),
)
ACCEPTED = (
  'a table needs the columns file and label (or filename, path, image, id; class, '
  'category, target, y)'
)
_ACCEPTED_JSON = (
  'the form {"labels": [["a.png", 0], ...]} or {"labels": {"a.png": 0, ...}} is needed'
)


def is_table(name: str) -> bool:
  """Whether a file is called like a label table, in any folder."""
  return name[name.rfind('/') + 1 :].lower() in TABLES


def may_lack_labels(table: str) -> bool:
  """Whether a table of this name may be one of captions or other things."""
  return table[table.rfind('/') + 1 :].lower().startswith('metadata.')


# Bytes that text in Windows-1252 does not have: three letters with accents in a row are
# words of another script; punctuation within a word is a letter of Mac OS or DOS.
_OTHER_CODE_PAGES = re.compile(
  rb'[\x80-\xff]{3}|[A-Za-z][\x80-\x90\x93-\x99\x9b\x9d\x9f]|[\x81\x84\x94\x9f][a-z]'
)


@dataclasses.dataclass(frozen=True)
class LabelTable:
  """A label table.

  Attributes:
    labels: file -> label, both as written; None if the table says that there are none.
    form: how the table was read: "columns 'file' and 'class', separated by ';'".
  """

  labels: Mapping[str, str] | None
  form: str


def read_label_table(name: str, content: bytes) -> LabelTable | None:
  """Reads a label table; None if it is a table of other things.

  Args:
    name: of the table, relative to the data; the last part decides how it is read.
    content: of the file.

  Raises:
    UserError: it cannot be read, or a label is missing or stated twice.
  """
  kind = TABLES[name[name.rfind('/') + 1 :].lower()]
  try:
    text, encoding = _decode(name, content)
    if kind == _JSON:
      return _read_json(name, text)
    if kind == _LINES:
      columns, rows = _read_lines(name, text)
      form = ''
    else:
      columns, rows, form = _read_csv(name, text)
  except (csv.Error, json.JSONDecodeError) as error:
    raise UserError(f'{name} cannot be read ({error}).') from error
  if may_lack_labels(name) and not _has_labels(columns):
    return None
  if parts := _vector_columns(columns):
    file = _choose_column(name, columns, _FILE_COLUMNS, 'file')
    vectors = ((n, row.get(file), _vector(name, n, row, parts)) for n, row in rows)
    described = [f"columns '{file}' and '{parts[0]}' to '{parts[-1]}'", form, encoding]
    return LabelTable(_collect(name, vectors), ', '.join(filter(None, described)))
  file, label = _choose_columns(name, columns)
  strip = str.strip if kind == _CSV else str  # spreadsheets put spaces around cells
  entries = (
    (n, row.get(file), strip(x) if isinstance(x := row.get(label), str) else x)
    for n, row in rows
  )
  labels = _collect(name, entries)
  parts = [f"columns '{file}' and '{label}'", form, encoding]
  return LabelTable(labels, ', '.join(part for part in parts if part))


def _decode(name: str, content: bytes) -> tuple[str, str]:
  """The text of a table, and its encoding if that is not UTF-8.

  Spreadsheets write UTF-8, UTF-16 ("Unicode text") or the code page of Windows.
  """
  encodings = {'utf-8-sig': '', 'cp1252': 'not UTF-8, read as Windows-1252'}
  if content.startswith((b'\xff\xfe', b'\xfe\xff')):
    encodings = {'utf-16': 'UTF-16'}
  elif b'\0' in content[:2]:
    encodings = {'utf-16-be' if content[:1] == b'\0' else 'utf-16-le': 'UTF-16'}
  elif _OTHER_CODE_PAGES.search(content):
    encodings = {'utf-8-sig': ''}
  for codec, description in encodings.items():
    with contextlib.suppress(UnicodeDecodeError):
      text = content.decode(codec)
      if '\0' not in text:
        return text, description
  raise UserError(
    f'{name} is no text in UTF-8, UTF-16 or Windows-1252: save it as UTF-8.'
  )


_Rows = list[tuple[int, dict[str, Any]]]  # number of the entry, column -> value


def _read_csv(name: str, text: str) -> tuple[list[str], _Rows, str]:
  """(columns, rows, delimiter in words) of a text with a header line."""
  text = text.lstrip('\r\n')
  delimiters = [',', ';', '\t', '|']
  if match := re.match(r'sep=(.)\r?\n', text):  # a hint for Excel
    delimiters = [match[1]]
    text = text[match.end() :]
  header = re.split(r'[\r\n]', text, maxsplit=1)[0]
  # The delimiter that finds both columns, else the one that finds most.
  delimiter = max(
    delimiters, key=lambda d: (_finds_columns(header, d), header.count(d))
  )
  spaced = re.search(re.escape(delimiter) + ' +"', text) or f'{delimiter} ' in header
  lines = list(
    csv.reader(
      io.StringIO(text, newline=''),
      delimiter=delimiter,
      skipinitialspace=bool(spaced) and delimiter != ' ',
      strict=True,
    )
  )
  columns = [cell.strip() for cell in lines[0]] if lines else []
  rows: _Rows = []
  for number, line in enumerate(lines[1:], 1):
    if not any(cell.strip() for cell in line):
      continue
    extra = [c for i, c in enumerate(line) if not ''.join(columns[i : i + 1])]
    if any(cell.strip() for cell in extra):
      raise UserError(
        f'{name}: entry {number} has {len(line)} cells, but the header names '
        f'{len([c for c in columns if c])} columns: quote cells that contain '
        f'{delimiter!r}.'
      )
    rows.append((number, dict(zip(columns, line))))
  form = '' if delimiter == ',' else f'separated by {delimiter!r}'
  return columns, rows, form


def _finds_columns(header: str, delimiter: str) -> int:
  """How many of the two columns a header line has if it is cut at `delimiter`."""
  cells = {_plain(cell) for cell in header.split(delimiter)}
  return sum(
    any(cells.intersection(group) for group in groups)
    for groups in (_FILE_COLUMNS, _LABEL_COLUMNS)
  )


def _read_lines(name: str, text: str) -> tuple[list[str], _Rows]:
  """(columns of the first row, rows) of one JSON object a line."""
  rows = [
    (number, json.loads(line, object_pairs_hook=_unique_keys))
    for number, line in enumerate(filter(str.strip, text.split('\n')), 1)
  ]
  for number, row in rows:
    if not isinstance(row, dict):
      raise UserError(f"{name}: entry {number} has no 'file' and 'label'.")
  return list(rows[0][1]) if rows else [], rows


def _read_json(name: str, text: str) -> LabelTable:
  """Reads dataset.json: {"labels": [["a.png", 0], ...]}, a dict, or null."""
  table = json.loads(text, object_pairs_hook=_unique_keys)
  if not isinstance(table, dict) or 'labels' not in table:
    found = f'the keys {_listed(table)}' if isinstance(table, dict) else 'no object'
    raise UserError(f"{name} has {found}, but no 'labels': {_ACCEPTED_JSON}.")
  labels = table['labels']
  if labels is None:
    return LabelTable(None, '"labels": null')
  if isinstance(labels, dict):
    labels = list(labels.items())
  if not isinstance(labels, list):
    raise UserError(f"{name}: 'labels' is a {type(labels).__name__}: {_ACCEPTED_JSON}.")
  entries = []
  for number, entry in enumerate(labels, 1):
    if not isinstance(entry, (list, tuple)) or len(entry) != 2:
      shown = json.dumps(entry)[:60]
      raise UserError(
        f"{name}: entry {number} of 'labels' is {shown}: {_ACCEPTED_JSON}."
      )
    entries.append((number, *entry))
  return LabelTable(_collect(name, entries), '')


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  result = dict(pairs)
  if len(result) < len(pairs):
    twice = next(k for k, _ in pairs if sum(k == other for other, _ in pairs) > 1)
    raise json.JSONDecodeError(f'the key {twice!r} occurs twice', '', 0)
  return result


def _plain(column: str) -> str:
  """A column's name without case, spaces, punctuation and quotes."""
  return re.sub(r'[\W_]+', '', column).lower()


def _has_labels(columns: Sequence[str]) -> bool:
  plain = {_plain(c) for c in columns}
  named = any(plain.intersection(group) for group in _LABEL_COLUMNS)
  return named or bool(_vector_columns(columns))


def _choose_columns(name: str, columns: Sequence[str]) -> tuple[str, str]:
  """The columns with the file and the label.

  Raises:
    UserError: one is missing, or several could be meant.
  """
  if not any(columns):
    raise UserError(f'{name} is empty: {ACCEPTED}.')
  return (
    _choose_column(name, columns, _FILE_COLUMNS, 'file'),
    _choose_column(name, columns, _LABEL_COLUMNS, 'label'),
  )


def _choose_column(
  name: str, columns: Sequence[str], groups: Iterable[Sequence[str]], role: str
) -> str:
  for group in groups:
    found = [column for column in columns if _plain(column) in group]
    if len(found) > 1:
      raise UserError(
        f'{name} has several columns that could be the {role}: {_listed(found)}; call '
        f"the one that is meant '{role}'."
      )
    if found:
      return found[0]
  raise UserError(
    f"{name} has no 'file' and 'label': its first line has {_listed(columns)}, and "
    f'{ACCEPTED}.'
  )


def _vector_columns(columns: Sequence[str]) -> list[str]:
  """The columns label_0, label_1, ... (or from 1), which are one vector; or none."""
  found = [column for column in columns if re.fullmatch(r'label\d+', _plain(column))]
  numbers = [int(_plain(column)[5:]) for column in found]
  is_row = numbers in (list(range(len(found))), list(range(1, len(found) + 1)))
  return found if is_row and 'label' not in map(_plain, columns) else []


def _vector(
  name: str, number: int, row: Mapping[str, Any], columns: Sequence[str]
) -> list[float]:
  """The numbers of an entry in these columns.

  Raises:
    UserError: one is missing or is no number.
  """
  values = []
  for column in columns:
    try:
      value = float(row[column])
    except (KeyError, TypeError, ValueError):
      value = math.nan
    if not math.isfinite(value):
      found = escape_unprintable(str(row.get(column, '')))[:40]
      raise UserError(
        f"{name}: entry {number} has {found!r} in the column '{column}': a number is "
        'needed, since it is part of a label vector.'
      )
    values.append(value)
  return values


def _listed(names: Iterable[str]) -> str:
  shown = [f"'{escape_unprintable(name)}'" for name in names if name]
  return ', '.join(shown[:8]) + (', ...' if len(shown) > 8 else '')


def is_vector(label: Any) -> bool:
  """Whether a label is a list of finite numbers."""
  return (
    isinstance(label, list)
    and bool(label)
    and all(type(x) in (int, float) and math.isfinite(x) for x in label)
  )


def _collect(name: str, entries: Iterable[tuple[int, Any, Any]]) -> dict[str, str]:
  """File -> label of (number of the entry, file, label)."""
  label_of: dict[str, str] = {}
  for number, file, label in entries:
    file = str(file) if type(file) is int else file  # an id
    if not isinstance(file, str) or not file.strip() or label is None:
      raise UserError(f"{name}: entry {number} has no 'file' and 'label'.")
    if isinstance(label, dict) or (isinstance(label, list) and not is_vector(label)):
      raise UserError(
        f'{name}: entry {number} ({escape_unprintable(file)}) has the label '
        f'{json.dumps(label)[:40]}: a class, a number or a name, or a vector of '
        'numbers is needed; attributes by name are not read.'
      )
    text = compose(label) if isinstance(label, str) else json.dumps(label)
    if not text.strip() or text == 'NaN':
      raise UserError(
        f'{name}: entry {number} ({escape_unprintable(file)}) has an empty label.'
      )
    if label_of.setdefault(file, text) != text:
      raise UserError(f'{name}: {escape_unprintable(file)} has two labels.')
  return label_of
