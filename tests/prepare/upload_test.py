"""prepare writes to a store: the manifest last, and the same command goes on."""

import numpy as np
import pytest

from gan_jax import UserError, data, prepare
from gan_jax.storage.files import cache_folder
from gan_jax.storage.store import Store
from tests.data.images import read_examples, write_image_folder


@pytest.fixture
def images(tmp_path, monkeypatch):
  monkeypatch.setenv('GAN_JAX_CACHE', str(tmp_path / 'cache'))
  write_image_folder(tmp_path / 'images', n=5)
  return tmp_path / 'images'


@pytest.fixture
def dest(url):
  return f'{url}/pets'


def test_a_set_in_a_store_is_the_one_of_a_folder(images, dest, tmp_path, capsys):
  prepare.main([str(images), dest, '--shard_images=3', '--report'])
  assert f'next: --config.data.name={dest}\n' in capsys.readouterr().out
  prepare.main([str(images), str(tmp_path / 'pets'), '--shard_images=3', '--report'])
  files = (p for p in (tmp_path / 'pets').rglob('*') if p.is_file())
  assert {str(p.relative_to(tmp_path / 'pets')) for p in files} == {*Store(dest).list()}
  sets = [
    data.load_dataset(str(name), res=16, channels=3)
    for name in (dest, tmp_path / 'pets')
  ]
  for a, b in zip(*(read_examples(x.examples) for x in sets), strict=True):
    np.testing.assert_array_equal(a, b)
  assert not list(cache_folder('prepare').iterdir())
  with pytest.raises(UserError, match=f'{dest} is a prepared set already'):
    prepare.main([str(images), dest])


def test_an_upload_that_was_stopped_goes_on(images, dest, monkeypatch):
  put, names = Store.upload, []

  def upload(store, file, name):
    if len(names) == 5:
      raise KeyboardInterrupt
    names.append(name)
    put(store, file, name)

  monkeypatch.setattr(Store, 'upload', upload)
  with pytest.raises(KeyboardInterrupt):
    prepare.main([str(images), dest])
  with pytest.raises(UserError, match='incomplete'):
    data.load_dataset(dest, res=16, channels=3)
  first = set(names)
  names.clear()
  with pytest.raises(UserError, match='begun with other images or options: go on with'):
    prepare.main([str(images), dest, '--png_level=1'])
  monkeypatch.setattr(
    Store, 'upload', lambda *args: (names.append(args[2]), put(*args))
  )
  prepare.main([str(images), dest])
  assert names.index('manifest.json') == len(names) - 1 and not first & {*names}
  assert first | {*names} == {*Store(dest).list()}
  assert len(data.load_dataset(dest, res=16, channels=3).examples) == 5


def test_a_url_that_cannot_be_written_is_refused_before_the_images_are_read(
  images, dest
):
  Store(dest).write('other', b'')
  for place, reason in (
    (dest, 'exists and is not empty: use a new DEST'),
    (dest.replace('bucket', 'no-bucket'), "there is no bucket 'no-bucket'"),
    (f'{dest}/Not-valid', "'Not-valid', is not a valid name of a set"),
  ):
    with pytest.raises(UserError, match=reason):
      prepare.main(['no_images_here', place])
