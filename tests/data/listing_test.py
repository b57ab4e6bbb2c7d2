"""Links, system folders, unreadable files, and names of zips of other systems."""

import os
import zipfile
import zlib

import numpy as np
import pytest

from gan_jax.data import decode
from gan_jax.data.folder import open_folder_or_zip
from tests.data.images import PNG, encode, random_image, write_files, write_zip


def names(source):
  return [source.display_name(i) for i in range(source.n_images)]


def test_links_to_files_and_folders_are_followed(tmp_path, rng_seed):
  other = encode(random_image(np.random.default_rng(rng_seed)))
  write_files(tmp_path, {'real/a.png': other, 'src/cat/1.png': PNG, 'b/c/2.png': PNG})
  (tmp_path / 'src/cat/link.png').symlink_to(tmp_path / 'real/a.png')
  (tmp_path / 'src/dogs').symlink_to('../real')
  (tmp_path / 'src/fox').symlink_to(tmp_path / 'chain')
  (tmp_path / 'chain').symlink_to(tmp_path / 'b/c')
  source = open_folder_or_zip(tmp_path / 'src')
  assert names(source) == ['cat/1.png', 'cat/link.png', 'dogs/a.png', 'fox/2.png']
  assert source.class_names == ('cat', 'dogs', 'fox')
  assert source.read(2) == (other, 1) == (source.read(1)[0], 1)
  assert not source.refused and not source.ignored


def test_loops_and_links_to_nothing_are_left_out_by_name(tmp_path):
  write_files(tmp_path, {'src/cat/1.png': PNG, 'src/dog/sub/2.png': PNG})
  for link, target in {
    'src/cat/up': tmp_path / 'src',
    'src/dog/sub/self': '.',
    'src/dog/twin': '../dog/sub',
    'src/cow': '/nowhere/cow',
    'src/cat/gone.png': 'nothing.png',
    'src/cat/gone.txt': 'nothing.txt',
    'src/cat/round.png': 'round.png',
  }.items():
    (tmp_path / link).symlink_to(target)
  os.mkfifo(tmp_path / 'src/cat/pipe.png')
  source = open_folder_or_zip(tmp_path / 'src')
  assert names(source) == ['cat/1.png', 'dog/sub/2.png', 'dog/twin/2.png']
  nowhere = 'is a symbolic link that leads to no file (No such file or directory)'
  assert source.refused == {
    'cat/gone.png': nowhere,
    'cat/pipe.png': 'is not a regular file',
    'cat/round.png': 'is a symbolic link that leads to no file (Too many levels of '
    'symbolic links)',
    'cow': nowhere,
  }
  loop = 'is a symbolic link to a folder that contains it'
  assert source.ignored == {
    'cat/gone.txt': nowhere,
    'cat/up/': loop,
    'dog/sub/self/': loop,
    'dog/twin/self/': loop,
  }
  assert source.n_other_files == 1


def test_a_file_that_disappears_is_named_when_it_is_read(tmp_path):
  write_files(tmp_path, {'a.png': PNG})
  source = open_folder_or_zip(tmp_path)
  (tmp_path / 'a.png').unlink()
  with pytest.raises(decode.UnusableImageError, match=r'cannot be read \(No such file'):
    source.read(0)


@pytest.mark.parametrize('kind', ['folder', 'zip'])
def test_folders_of_systems_and_tools_are_no_classes(tmp_path, kind):
  left_out = {
    'cat/@eaDir/1.png/SYNOFILE_THUMB_XL.png': ('cat/@eaDir/', 'thumbnails of a NAS'),
    '#recycle/old.png': ('#recycle/', 'recycle bin'),
    '.Trash-1000/old.png': ('.Trash-1000/', 'hidden'),
    '$RECYCLE.BIN/x.png': ('$RECYCLE.BIN/', 'recycle bin of Windows'),
    'System Volume Information/x.png': ('System Volume Information/', 'Windows'),
    'lost+found/x.png': ('lost+found/', 'Linux'),
    '__MACOSX/cat/._1.png': ('__MACOSX/', 'metadata of macOS'),
    '.ipynb_checkpoints/x.png': ('.ipynb_checkpoints/', 'hidden'),
    '.thumbnails/normal/x.png': ('.thumbnails/', 'hidden'),
    '__pycache__/x.pyc': ('__pycache__/', 'Python'),
    '.git/x.png': ('.git/', 'hidden'),
    'cat/._1.png': ('cat/._1.png', 'hidden'),
    'cat/Thumbs.db': ('cat/Thumbs.db', 'thumbnails of Windows'),
    'cat/desktop.ini': ('cat/desktop.ini', 'settings of Windows'),
  }
  files = dict.fromkeys(['cat/1.png', 'dog/1.png', *left_out], PNG)
  files['notes.txt'] = b'text'
  if kind == 'zip':
    path = write_zip(tmp_path / 'src.zip', files)
  else:
    path = tmp_path / 'src'
    write_files(path, files)
  source = open_folder_or_zip(path)
  assert names(source) == ['cat/1.png', 'dog/1.png'] and not source.refused
  assert source.class_names == ('cat', 'dog')
  assert source.ignored.keys() == {name for name, _ in left_out.values()}
  for name, reason in left_out.values():
    assert reason in source.ignored[name]
  assert source.n_other_files == len(left_out) + 1


def test_zips_of_other_systems_have_the_names_of_a_folder(tmp_path):
  """Backslashes, ./, UTF-8 without its flag, decomposed names, Unicode in a field."""
  composed, decomposed = 'caf\u00e9', 'cre\u0301me'
  with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as archive:
    archive.writestr('.\\dog\\1.png', PNG)
    archive.writestr('./dog//2.png', PNG)
    archive.writestr('dog\\', b'')
    archive.writestr(f'{decomposed}/3.png', PNG)
    archive.writestr('x' * 5 + '/4.png', PNG)  # replaced by UTF-8 without the flag
    raw = b'\x82\x82/5.png'  # cp437 for 'éé/5.png'
    info = zipfile.ZipInfo('y' * 2 + '/5.png')
    field = b'\1' + zlib.crc32(raw).to_bytes(4, 'little') + '\u732b/5.png'.encode()
    info.extra = b'\x75\x70' + len(field).to_bytes(2, 'little') + field
    archive.writestr(info, PNG)
  content = (tmp_path / 'a.zip').read_bytes()
  content = content.replace(b'xxxxx/4.png', f'{composed}/4.png'.encode())
  (tmp_path / 'a.zip').write_bytes(content.replace(b'yy/5.png', raw))
  source = open_folder_or_zip(tmp_path / 'a.zip')
  assert names(source) == [
    f'{composed}/4.png',
    f'{decomposed}/3.png',
    'dog/1.png',
    'dog/2.png',
    '\u732b/5.png',
  ]
  assert source.class_names == (composed, 'cr\u00e9me', 'dog', '\u732b')
  for i in range(source.n_images):
    assert source.read(i)[0] == PNG


def test_files_of_one_path_are_all_counted(tmp_path):
  """What a program left that does not know the backslashes of an archive."""
  write_files(tmp_path / 'src', {'a/1.png': PNG, 'a\\1.png': PNG, 'a\\2.png': PNG})
  source = open_folder_or_zip(tmp_path / 'src')
  assert names(source) == ['a/1.png', 'a/2.png'] and source.read(1) == (PNG, 0)
  assert source.refused == {'a\\1.png': 'has the same path as a/1.png, which is used'}
  with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as archive:
    for name in ('a/1.png', 'a\\1.png', './a/1.png', 'a//1.png'):
      archive.writestr(name, PNG)
  source = open_folder_or_zip(tmp_path / 'a.zip')
  assert names(source) == ['a/1.png']
  twice = 'is in the zip twice; the first one is used'
  shown = 'a/1.png', 'a/1.png (2)', 'a/1.png (3)'
  assert source.refused == dict.fromkeys(shown, twice)
