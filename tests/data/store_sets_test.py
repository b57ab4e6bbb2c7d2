"""Sets in stores, and sets that are copied first: read like those in a folder."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from gan_jax import UserError, data, prepare
from gan_jax.storage.store import Store
from tests.data.images import read_examples, write_image_folder


@pytest.fixture(scope='session')
def pets(tmp_path_factory):
  """A prepared set of 20 images in 7 files a resolution, at 16, 8 and 4 pixels."""
  folder = tmp_path_factory.mktemp('pets')
  write_image_folder(folder / 'images')
  prepare.main([str(folder / 'images'), str(folder / 'pets'), '--shard_images=3'])
  return folder / 'pets'


@pytest.fixture(autouse=True)
def default_cache(tmp_path, monkeypatch):
  monkeypatch.setenv('GAN_JAX_CACHE', str(tmp_path / 'default'))
  return tmp_path / 'default' / 'data'


@pytest.fixture
def cache(tmp_path):
  return tmp_path / 'cache'


def load(name, res=16, channels=3, **kwargs):
  return data.load_dataset(str(name), res=res, channels=channels, **kwargs)


def assert_same(a, b):
  for x, y in zip(read_examples(a.examples), read_examples(b.examples), strict=True):
    np.testing.assert_array_equal(x, y)
  assert data.make_record(a) == data.make_record(b) and data.is_comparable(
    data.make_record(a), b
  )
  assert (a.class_names, a.counts, a.origin) == (b.class_names, b.counts, b.origin)


def copied_folders(cache):
  """Folders of a copy that have files, below that of the set."""
  paths = (p for p in cache.rglob('*') if p.is_file())
  below = (p.relative_to(cache).parent.parts[2:] for p in paths)
  return {'/'.join(parts) for parts in below if parts}


def upload(folder, url, names=None):
  store = Store(url)
  for path in sorted(p for p in Path(folder).rglob('*') if p.is_file()):
    name = path.relative_to(folder).as_posix()
    if names is None or names(name):
      store.upload(path, name)
  return store


def test_a_prepared_set_is_copied_by_resolution_when_it_is_read(pets, cache):
  copied = load(pets, cache=str(cache))
  assert_same(copied, load(pets))
  assert copied_folders(cache) == {'16/1.0.0'} and copied.name == str(pets)
  assert_same(copied.downsampled(4), load(pets).downsampled(4))
  assert copied_folders(cache) == {'16/1.0.0', '4/1.0.0'}
  # Grey is read from the full resolution.
  assert_same(load(pets, 8, 1, cache=str(cache)), load(pets, 8, 1))
  assert copied_folders(cache) == {'16/1.0.0', '4/1.0.0'}


def test_a_tfds_set_is_copied_by_split(tiny_tfds, cache):
  options = {'data_dir': str(tiny_tfds), 'res': 5}
  copied = load('tiny_images', cache=str(cache), split='broken', **options)
  assert len(copied.examples) == 1 and copied.name == 'tiny_images'
  files = {p.name for p in cache.rglob('*array_record*')}
  assert files == {'tiny_images-broken.array_record-00000-of-00001'}
  for split in ('train', 'train[1:]'):
    copied = load('tiny_images:1.0.0', cache=str(cache), split=split, **options)
    assert_same(copied, load('tiny_images:1.0.0', split=split, **options))
  with pytest.raises(UserError, match="in split 'test'; its splits are train, broken"):
    load('tiny_images', cache=str(cache), split='test', **options)
  assert_same(
    load(tiny_tfds / 'tiny_images/1.0.0', 5, cache=str(cache)),
    load('tiny_images', **options),
  )


def test_a_version_that_is_gone_is_not_read(tiny_tfds, tmp_path, cache):
  for version in ('1.0.0', '2.0.0'):
    folder = tmp_path / 'sets' / 'tiny_images' / version
    shutil.copytree(tiny_tfds / 'tiny_images' / '1.0.0', folder)
    info = json.loads((folder / 'dataset_info.json').read_text())
    (folder / 'dataset_info.json').write_text(json.dumps(info | {'version': version}))
  options = {'data_dir': str(tmp_path / 'sets'), 'cache': str(cache), 'res': 5}
  assert 'tiny_images/2.0.0' in load('tiny_images', **options).origin
  shutil.rmtree(folder)
  assert 'tiny_images/1.0.0' in load('tiny_images', **options).origin


def test_what_is_no_prepared_set_is_not_copied(tmp_path, cache):
  write_image_folder(tmp_path / 'images')
  for name, reason in (
    ('emoji', 'but emoji is built in: leave out data.cache'),
    (tmp_path / 'images', 'is a folder of images: prepare it with gan_jax.prepare, or'),
    (tmp_path / 'none', 'there is no such folder'),
  ):
    with pytest.raises(UserError, match=reason):
      load(name, cache=str(cache))
  assert not cache.exists()


def test_a_set_in_a_store_is_read_through_the_default_cache(pets, url, default_cache):
  upload(pets, url)
  assert_same(load(url), load(pets))
  assert load(url).name == url and copied_folders(default_cache) == {'16/1.0.0'}
  # By its name below the URL of a folder, too.
  above, _, name = url.rpartition('/')
  assert_same(load(name, data_dir=above), load(pets))


def test_a_file_that_differs_is_fetched_again_from_a_store(pets, url, cache):
  upload(pets, url)
  load(url, cache=str(cache))
  for path in sorted(cache.rglob('*-0000[25]-of-*')):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
  assert_same(load(url, cache=str(cache)), load(pets))


def test_half_a_set_in_a_store_is_named(pets, url, tmp_path, cache):
  options = {'cache': str(cache)}
  with pytest.raises(data.MissingDataError, match=f'{url}: there is no such set'):
    load(url, **options)
  upload(pets, url, lambda name: name != 'manifest.json')
  with pytest.raises(UserError, match=f'{url} has no manifest.json.*incomplete; copy'):
    load(url, **options)
  store = Store(url)
  store.upload(pets / 'manifest.json', 'manifest.json')
  names = sorted(name for name in store.list('16') if '-of-' in name)
  content = store.read(names[2])
  store.write(names[2], content[:-1])
  with pytest.raises(UserError, match=f'{names[2]} has {len(content) - 1} bytes, but '):
    load(url, **options)
  store.write(names[2], bytes(len(content)))
  with pytest.raises(UserError, match=f'{names[2]} has the SHA-256 .*corrupted'):
    load(url, **options)
  store.delete(['16/1.0.0/features.json'])
  with pytest.raises(UserError, match='16/1.0.0/features.json is missing, but mani'):
    load(url, **options)
  store.write('manifest.json', b'{"levels"')
  with pytest.raises(UserError, match=f'{url}/manifest.json cannot be read'):
    load(url, **options)
  with pytest.raises(UserError, match="there is no bucket 'no-bucket'"):
    load(url.replace('bucket', 'no-bucket'), **options)
  Store(f'{url}2').write('a.png', b'')
  with pytest.raises(UserError, match=f'{url}2 is no prepared set'):
    load(f'{url}2', **options)


def test_a_tfds_set_in_a_store_is_read(tiny_tfds, url, cache):
  upload(tiny_tfds / 'tiny_images', f'{url}/tiny_images')
  local = load('tiny_images', data_dir=str(tiny_tfds), res=5)
  options = {'cache': str(cache), 'res': 5}
  for name in ('tiny_images', f'{url}/tiny_images', f'{url}/tiny_images/1.0.0'):
    read = load(name, data_dir=url, **options)
    assert_same(read, local)
    assert read.name == name
  with pytest.raises(data.MissingDataError, match=f'not prepared under {url}; prepare'):
    load('cifar10', data_dir=url, **options)
  upload(tiny_tfds / 'tiny_images/1.0.0', f'{url}/tiny_images/2.0.0')
  with pytest.raises(UserError, match=r'several sets, 1\.0\.0, 2\.0\.0: name one, '):
    load(f'{url}/tiny_images', **options)
  split = 'tiny_images-train.array_record-00000-of-00001'
  Store(url).delete([f'tiny_images/1.0.0/{split}'])
  with pytest.raises(UserError, match=f'1.0.0/{split} is missing, but belongs to the'):
    load('tiny_images:1.0.0', data_dir=url, **options)


def test_a_local_folder_comes_before_a_store_unless_that_has_the_set(
  pets, url, tmp_path, monkeypatch
):
  write_image_folder(tmp_path / 'pets', n=3)
  monkeypatch.chdir(tmp_path)
  assert load('pets', data_dir=url).name == './pets'
  upload(pets, f'{url}/pets')
  assert load('pets', data_dir=url).name == f'{url}/pets'
