"""Digests over all images of a dataset: what changes them, and what does not."""

import json
import os
import shutil

import pytest

from gan_jax import data
from gan_jax.data.digests import identity
from gan_jax.prepare import command as prepare_command
from tests.data.images import file_contents, write_files, write_image_folder, write_zip

N = 200  # more images than any sample of them


@pytest.fixture(scope='module')
def original(tmp_path_factory):
  folder = tmp_path_factory.mktemp('data') / 'pets'
  write_image_folder(folder, N, 4)
  return folder


def digests(path, **options):
  return data.load_dataset(str(path), res=4, channels=3, **options).digests


def test_a_moved_folder_is_the_same_data(original, tmp_path):
  before = digests(original)
  assert {*before} == {'names', 'sizes', 'labels', 'version'}
  shutil.copytree(original, tmp_path / 'copy')  # with the times
  assert digests(tmp_path / 'copy') == before
  os.utime(tmp_path / 'copy' / 'cat' / '000.png')
  touched = digests(tmp_path / 'copy')
  assert identity(touched) == identity(before)
  assert touched['version'] != before['version']  # cached statistics depend on it


@pytest.mark.parametrize('index', [1, 100, N - 1])
def test_every_file_counts(original, tmp_path, index):
  before = digests(original)
  changed = lambda now: {name for name in before if now[name] != before[name]}
  copy = shutil.copytree(original, tmp_path / 'copy')
  (path,) = copy.rglob(f'{index:03d}.png')
  with path.open('ab') as file:
    file.write(b'\0')
  assert changed(digests(copy)) == {'sizes', 'version'}
  path.rename(path.with_name(f'{index:03d}b.png'))
  assert changed(digests(copy)) == {'names', 'sizes', 'version'}
  shutil.copytree(original, tmp_path / 'other')
  lines = [f'{c}/{i:03d}.png,{c}' for i in range(N) for c in [('cat', 'dog')[i % 2]]]
  lines[index] = lines[index].rpartition(',')[0] + (',cat' if index % 2 else ',dog')
  table = '\n'.join(['file,label', *lines])
  write_files(tmp_path / 'other', {'labels.csv': table.encode()})
  assert 'labels' in changed(digests(tmp_path / 'other'))


def test_a_zip_has_checksums_and_is_the_same_data_as_its_folder(original, tmp_path):
  files = file_contents(original)
  before = digests(write_zip(tmp_path / 'a.zip', files))
  folder = identity(digests(original))
  assert {name: before[name] for name in folder} == folder
  files['cat/000.png'] = files['cat/000.png'][:-1] + b'\0'
  now = digests(write_zip(tmp_path / 'b.zip', files))
  assert [name for name in identity(now) if now[name] != before[name]] == ['content']


def test_built_in_images_depend_on_their_labels_only(tmp_path):
  small, large = (data.load_dataset('digits', res=r, channels=1) for r in (4, 8))
  assert identity(small.digests) == identity(large.digests)
  assert small.digests['version'] != large.digests['version']


def test_sets_of_tensorflow_datasets_depend_on_all_files(tiny_tfds, tmp_path):
  options = {'res': 4, 'channels': 3, 'upscale': True}  # reads no record
  read = lambda folder: (
    data.load_dataset('tiny_images', data_dir=str(folder), **options).digests
  )
  before = read(tiny_tfds)
  copy = shutil.copytree(tiny_tfds, tmp_path / 'copy', copy_function=shutil.copyfile)
  assert {*before} == {'records', 'version'} and identity(read(copy)) == identity(
    before
  )
  (file,) = copy.rglob('*train.array_record*')
  os.utime(file, (1, 1))
  assert read(copy)['version'] != before['version']
  file.write_bytes(file.read_bytes() + b'\0')
  assert identity(read(copy)) != identity(before)


def test_prepared_sets_depend_on_the_checksums_in_their_manifest(original, tmp_path):
  prepare_command.main([str(original), str(tmp_path / 'a'), '--res=4'])
  shutil.copytree(tmp_path / 'a', tmp_path / 'b', copy_function=shutil.copyfile)
  before = digests(tmp_path / 'a')
  assert {*before} == {'content'} and digests(tmp_path / 'b') == before
  manifest = json.loads((tmp_path / 'b' / 'manifest.json').read_text())
  (entry,) = manifest['levels']['4']['files'].values()
  entry['sha256'] = '0' * 64
  (tmp_path / 'b' / 'manifest.json').write_text(json.dumps(manifest))
  assert digests(tmp_path / 'b') != before
