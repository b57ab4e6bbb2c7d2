"""Names in label tables find their images, whatever the system that wrote them."""

import json

import pytest

from gan_jax import UserError
from gan_jax.data.folder import open_folder_or_zip
from tests.data.images import PNG, write_files, write_zip

COMPOSED, DECOMPOSED = '\u00e9.png', 'e\u0301.png'


def labels_of(source):
  """Name -> name of the class."""
  return {
    source.display_name(i): source.class_names[label]
    for i, label in enumerate(source.labels)
  }


@pytest.mark.parametrize('kind', ['folder', 'zip'])
@pytest.mark.parametrize(
  ('files', 'names'),
  [
    (('0.png', '1.PNG'), ('./0.png', '.\\1.png')),
    (('sub/0.png', 'sub/1.png'), ('sub\\0.png', 'sub//1.png')),
    (('sub/0.png', 'sub/1.jpeg'), ('sub/0', 'sub\\1')),
    ((COMPOSED, 'a/' + DECOMPOSED), (DECOMPOSED, 'a/' + COMPOSED)),
    (('a.b.png', ' c.png'), ('a.b', ' c.png')),
    (('images/0.png', 'images/1.png'), ('0.png', '1')),
    (('x/images/0.png', 'x/images/a/1.png'), ('0.png', 'a/1.png')),
    (('x/y/0.png', 'x/y/1.png'), ('y/0.png', 'y\\1.png')),
  ],
)
def test_names_of_other_systems(tmp_path, kind, files, names):
  table = 'file,label\n' + ''.join(f'{n},{"xy"[i]}\n' for i, n in enumerate(names))
  contents = dict.fromkeys(files, PNG) | {'labels.csv': table.encode()}
  if kind == 'zip':
    path = write_zip(tmp_path / 'src.zip', contents)
  else:
    path = tmp_path / 'src'
    write_files(path, contents)
  source = open_folder_or_zip(path)
  assert labels_of(source) == dict(zip(files, 'xy')) and not source.refused
  assert source.n_other_files == 0
  assert source.labels_from == (
    "labels.csv (columns 'file' and 'label'): 2 classes by name: 0 x, 1 y"
  )


@pytest.mark.parametrize('kind', ['folder', 'zip'])
def test_numbered_folders_of_nvidia_are_no_classes(tmp_path, kind):
  names = [f'{i // 2:05d}/img{i:08d}.png' for i in range(5)]
  table = {'labels': [[name, (0, 2, 2, 0, 10)[i]] for i, name in enumerate(names)]}
  files = dict.fromkeys(names, PNG)
  for labels, expected in ((table, [0, 2, 2, 0, 10]), ({'labels': None}, [0] * 5)):
    files['dataset.json'] = json.dumps(labels).encode()
    path = tmp_path / kind
    if kind == 'zip':
      write_zip(path, files)
    else:
      write_files(path, files)
    source = open_folder_or_zip(path)
    assert source.labels.tolist() == expected
    n_classes = max(expected) + 1 if max(expected) else 0
    assert source.class_names == tuple(map(str, range(n_classes)))
  assert source.labels_from == 'none' and not source.ignored


def test_numbers_as_floats_are_class_numbers(tmp_path):
  names = [f'{i}.png' for i in range(4)]
  table = 'file;label\n' + ''.join(f'{i}.png;{x}\n' for i, x in enumerate('3210'))
  write_files(tmp_path, dict.fromkeys(names, PNG))
  for form in ('{}', '{}.0', '{},00', '0{}', '+{}.'):
    rows = [f'{name};{form.format(3 - i)}' for i, name in enumerate(names)]
    (tmp_path / 'labels.csv').write_text('file;label\n' + '\n'.join(rows))
    assert open_folder_or_zip(tmp_path).labels.tolist() == [3, 2, 1, 0], table
  for value in ('2.5', '1,000', '1e3'):
    rows = [f'{name};{value if i else 1}' for i, name in enumerate(names)]
    (tmp_path / 'labels.csv').write_text('file;label\n' + '\n'.join(rows))
    if value == '1e3':
      assert open_folder_or_zip(tmp_path).class_names == ('1', '1e3')
    else:
      with pytest.raises(UserError, match=f'label of 1.png is {value}: 0 to 99999'):
        open_folder_or_zip(tmp_path)


@pytest.mark.parametrize(
  ('files', 'table', 'message'),
  [
    (('a.png', 'a.jpg'), 'a,x', r'a fits 2 images, a.\w+ and a.\w+: write the names'),
    (('a.PNG', 'a.Png'), 'a.png,x', 'a.png fits 2 images, a.PNG and a.Png'),
    (('a.PNG',), 'a.png,x\na.PNG,y', 'a.PNG has two labels'),
    (('a.png',), 'a.png,x\n./a.png,y', 'a.png has two labels'),
    (('a.png',), '/data/b.png,x', 'no label for any of the 1 images: it names /data/b'),
    (('a.png',), '', 'labels.csv has no label for any .* it names no file, and the fi'),
    (('a.png.jpg',), 'a.png,x', 'no label for any'),
    (('u/a.png', 'v/a.png'), 'a.png,x', 'no label for any of the 2'),
  ],
)
def test_unclear_names_are_refused(tmp_path, files, table, message):
  content = f'file,label\n{table}\n'.encode()
  write_files(tmp_path, dict.fromkeys(files, PNG) | {'labels.csv': content})
  with pytest.raises(UserError, match=message):
    open_folder_or_zip(tmp_path)


def test_names_as_written_come_first(tmp_path):
  files = dict.fromkeys(['a.png', 'a.PNG', 'b', COMPOSED, DECOMPOSED], PNG)
  table = f'file,label\na.PNG,1\na.png,0\n{DECOMPOSED},3\n{COMPOSED},2\n'
  write_files(tmp_path, files | {'labels.csv': table.encode()})
  assert labels_of(open_folder_or_zip(tmp_path)) == {
    'a.PNG': '1',
    'a.png': '0',
    DECOMPOSED: '3',
    COMPOSED: '2',
  }


def test_tables_that_are_not_read_are_named(tmp_path):
  files = {'a/1.png': PNG, 'b/1.png': PNG, 'a/labels.csv': b''}
  write_files(tmp_path / 'folders', files)
  source = open_folder_or_zip(tmp_path / 'folders')
  assert source.class_names == ('a', 'b')
  assert source.ignored == {'a/labels.csv': 'is not at the top level, and not read'}
  write_files(tmp_path / 'one', {'images/1.png': PNG, 'train.csv': b''})
  assert open_folder_or_zip(tmp_path / 'one').ignored.keys() == {'train.csv'}
  tmp_path /= 'flat'
  write_files(tmp_path, {'a.png': PNG, 'train.csv': b''})
  source = open_folder_or_zip(tmp_path)
  assert source.ignored == {
    'train.csv': 'is not read; a table of labels is called labels.csv',
  }
  (tmp_path / 'labels.xlsx').write_bytes(b'')
  with pytest.raises(UserError, match=r'labels.xlsx, which is not read: save it as l'):
    open_folder_or_zip(tmp_path)


@pytest.mark.parametrize('names', [('0.png', '1.png'), ('images/0.png', 'images/1')])
def test_a_table_in_a_folder_of_its_own(tmp_path, names):
  table = f'file,label\n{names[0]},b\n{names[1]},a\n'.encode()
  files = {'images/0.png': PNG, 'images/1.png': PNG, 'meta/labels.csv': table}
  write_files(tmp_path, files)
  source = open_folder_or_zip(tmp_path)
  assert source.labels.tolist() == [1, 0] and source.class_names == ('a', 'b')


def test_two_tables_are_refused(tmp_path):
  write_files(
    tmp_path,
    {
      'a.png': PNG,
      'metadata.csv': b'file_name,label\na.png,1\n',
      'dataset.json': b'{"labels": null}',
    },
  )
  with pytest.raises(UserError, match='has both dataset.json and metadata.csv: keep'):
    open_folder_or_zip(tmp_path)
  (tmp_path / 'metadata.csv').write_text('file_name,text\na.png,x\n')
  source = open_folder_or_zip(tmp_path)
  assert source.n_images == 1 and source.n_other_files == 1
  assert source.ignored == {'metadata.csv': 'has no column of labels'}
