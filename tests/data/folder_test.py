"""Folders and zips: labels of tables and sub-folders, ambiguous and unsafe files."""

import csv

import pytest

from gan_jax import UserError
from gan_jax.data.folder import open_folder_or_zip
from tests.data.images import COLORS, PNG, encode, write_files, write_zip


@pytest.mark.parametrize(
  ('table', 'content', 'names', 'labels'),
  [
    ('labels.csv', 'file,label\nb.png,dog\na.png,cat\nc/d.png,dog\n', 'cat dog', '011'),
    (
      'labels.csv',
      'label,file\r\n3,b.png\r\n0,a.png\r\n1,c/d.png\r\n',
      '0 1 2 3',
      '031',
    ),
    (
      'labels.jsonl',
      '{"file": "b.png", "label": 1}\n{"file": "a.png", "label": 0}\n'
      '{"file": "c/d.png", "label": 0}\n',
      '0 1',
      '010',
    ),
  ],
)
@pytest.mark.parametrize('prefix', ['', 'all/'])
def test_labels_from_a_table(tmp_path, table, content, names, labels, prefix):
  files = {name: encode(COLORS) for name in ('a.png', 'b.png', 'c/d.png')}
  files[table] = content.encode('utf-8-sig')
  write_files(tmp_path / 'src', {f'{prefix}{name}': x for name, x in files.items()})
  source = open_folder_or_zip(tmp_path / 'src')
  assert source.class_names == tuple(names.split())
  assert ''.join(map(str, source.labels)) == labels
  assert (source.n_images, source.n_other_files, dict(source.refused)) == (3, 0, {})


def test_labels_from_folders_are_in_the_order_of_numbers(tmp_path):
  write_files(tmp_path, {f'{i}/x/a.png': PNG for i in (10, 9, 0)})
  source = open_folder_or_zip(tmp_path)
  assert source.class_names == ('0', '9', '10')
  names = [source.display_name(i) for i in range(3)]
  assert names == ['0/x/a.png', '10/x/a.png', '9/x/a.png']
  assert source.labels.tolist() == [0, 2, 1]


@pytest.mark.parametrize(
  ('files', 'message'),
  [
    ({'a.txt': b'x'}, 'has no images; image files end with .*.png, '),
    (
      {'a.png': PNG, 'cat/b.png': PNG},
      r'images beside its sub-folders \(a.png and 0',
    ),
    (
      {'a.png': PNG, 'labels.csv': b'file,label\na.png,-1\n'},
      'label of a.png is -1: 0',
    ),
    ({'a.png': PNG, 'labels.csv': b'file,label\na.png,100000\n'}, 'a.png is 100000: 0'),
    (
      {'a.png': PNG, 'labels.csv': b'name,class\na.png,1\n'},
      "has no 'file' and 'label'",
    ),
    ({'a.png': PNG, 'labels.csv': b'label,file\n1\n'}, "has no 'file' and 'label'"),
    ({'a.png': PNG, 'labels.csv': b'file,label\na.png,\n'}, 'has an empty label'),
    (
      {'a.png': PNG, 'labels.csv': b'file,label\na.png,1\na.png,2'},
      'a.png has two lab',
    ),
    ({'a.png': PNG, 'labels.jsonl': b'{"file"'}, 'labels.jsonl cannot be read'),
    ({'a.png': PNG, 'labels.csv': b'', 'labels.jsonl': b''}, 'has both labels.csv and'),
  ],
)
def test_ambiguous_sources_are_refused(tmp_path, files, message):
  write_files(tmp_path / 'src', files)
  with pytest.raises(UserError, match=message):
    open_folder_or_zip(tmp_path / 'src')


def test_files_without_labels_and_labels_without_files(tmp_path):
  table = b'file,label\na.png,cat\n../../etc/passwd.png,dog\n'
  write_files(tmp_path, {'a.png': PNG, 'b.png': PNG, 'labels.csv': table})
  source = open_folder_or_zip(tmp_path)
  assert (source.n_images, source.class_names) == (1, ('cat',))
  assert source.refused == {
    '../../etc/passwd.png': 'is listed in labels.csv, but does not exist',
    'b.png': 'has no label in labels.csv',
  }


def test_images_by_other_suffixes_and_by_content(tmp_path):
  """JPEGs have several suffixes; what is not read is named, by suffix or content."""
  jpeg = encode(COLORS, 'JPEG')
  files = dict.fromkeys(('a.jfif', 'b.JPE', 'c.Jpg', 'd.jif'), jpeg)
  others = {
    'e.svg': b'<svg',
    'f.CR2': b'II*',
    'g.psd': b'8BPS',
    'h.raw': b'',
    'notes.txt': b'',
    'IMG_1': jpeg,
    'x.dat': b'\0\0\0\x18ftypheic' + bytes(20),
    'y.dat': b'BM',
  }
  write_files(tmp_path / 'src', files | others)
  path = write_zip(tmp_path / 'src.zip', files | others)
  for source in (open_folder_or_zip(tmp_path / 'src'), open_folder_or_zip(path)):
    assert [source.display_name(i) for i in range(source.n_images)] == list(files)
    assert list(source.refused) == [
      'e.svg',
      'f.CR2',
      'g.psd',
      'h.raw',
      'IMG_1',
      'x.dat',
    ]
    assert 'is of the format SVG, which is not read' in source.refused['e.svg']
    assert source.refused['IMG_1'] == 'is a JPEG image without its suffix: rename it'
    assert source.refused['x.dat'] == 'is a HEIF image without its suffix: rename it'
    assert source.n_other_files == 2


def test_the_fingerprint_covers_every_file_and_label(tmp_path):
  files = {f'{c}/{i}.png': PNG for c in 'ab' for i in range(200)}

  def fingerprint(changed):
    path = write_zip(tmp_path / 'src.zip', files | changed)
    return open_folder_or_zip(path).fingerprint

  table = 'file,label\n' + ''.join(f'{name},{name[0]}\n' for name in files)
  tables = [
    table,
    table.replace('b/123.png,b', 'b/123.png,a'),
    table.replace(',b\n', ',c\n'),
  ]
  digests = [
    fingerprint({}),
    fingerprint({'b/123.png': encode(COLORS[::-1])}),
    fingerprint({'b/200.png': PNG}),
    *(fingerprint({'labels.csv': text.encode()}) for text in tables[1:]),
  ]
  assert len(set(digests)) == 5
  assert (
    digests[0]
    == fingerprint({'notes.txt': b''})
    == fingerprint({'labels.csv': tables[0].encode()})
  )


def test_one_class_in_two_compositions_is_refused(tmp_path):
  write_files(tmp_path, {'caf\u00e9/1.png': PNG, 'cafe\u0301/2.png': PNG})
  with pytest.raises(
    UserError, match='two folders called caf\u00e9, which differ only'
  ):
    open_folder_or_zip(tmp_path)


def test_csv_with_awkward_names(tmp_path):
  names = ['a, b.png', 'ä "q".png', 'plain.png']
  write_files(tmp_path, dict.fromkeys(names, PNG))
  with (tmp_path / 'labels.csv').open('w', newline='') as file:
    csv.writer(file).writerows([('file', 'label'), *((n, n[0]) for n in names)])
  source = open_folder_or_zip(tmp_path)
  assert [source.class_names[i] for i in source.labels] == ['a', 'p', 'ä']
