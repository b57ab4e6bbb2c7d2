"""Opening a dataset by name: folders, zips, and arguments that are refused."""

import sys

import numpy as np
import pytest

from gan_jax import UserError, data, prepare
from gan_jax.data import decode
from gan_jax.data.load import count_reasons
from tests.data.images import (
  encode,
  file_contents,
  read_examples,
  write_files,
  write_image_folder,
  write_zip,
)


def test_arguments_out_of_range_and_missing_packages_are_refused(monkeypatch):
  with pytest.raises(UserError, match='channels is 4, but dataset .emoji. has 3'):
    data.load_dataset('emoji', res=32, channels=4)
  with pytest.raises(UserError, match='res must be a positive number of pixels, not 0'):
    data.load_dataset('emoji', res=0, channels=3)
  with pytest.raises(UserError, match="'emoji' has only the split 'train', not 'test'"):
    data.load_dataset('emoji', split='test', res=32, channels=3)
  monkeypatch.setitem(sys.modules, 'sklearn.datasets', None)
  with pytest.raises(UserError, match='pip install scikit-learn'):
    data.load_dataset('digits', res=8, channels=1)


def test_a_folder_and_a_zip_of_it_are_the_same_dataset(tmp_path):
  pixels = write_image_folder(tmp_path / 'pets')
  write_zip(tmp_path / 'pets.zip', file_contents(tmp_path / 'pets'))
  for name in ('pets', 'pets.zip'):
    pets = data.load_dataset(str(tmp_path / name), res=8, channels=3)
    assert (pets.class_names, pets.counts) == (('cat', 'dog'), (10, 10))
    images, labels = read_examples(pets.examples)
    mean = pixels.reshape(20, 8, 2, 8, 2, 3).mean((2, 4))
    assert np.abs(images - mean).max() <= 1, 'PIL rounds after each axis'
    assert list(labels) == [0] * 10 + [1] * 10
  with pytest.raises(UserError, match="only the split 'train', not 'test'"):
    data.load_dataset(str(tmp_path / 'pets'), split='test', res=8, channels=3)
  with pytest.raises(UserError, match='there is no such folder or zip'):
    data.load_dataset(str(tmp_path / 'pests'), res=8, channels=3)
  (tmp_path / 'empty').mkdir()
  with pytest.raises(UserError, match='empty has no images'):
    data.load_dataset(str(tmp_path / 'empty'), res=8, channels=3)


def test_an_existing_folder_needs_no_dot_and_slash(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'tfds'))
  for name in ('pets', 'sets/my pets', 'emoji', 'cifar10'):
    write_image_folder(tmp_path / name, n=3)
  for name in ('pets', 'sets/my pets'):
    taken = data.load_dataset(name, res=8, channels=3)
    assert taken.name == f'./{name}' and taken.class_names == ('cat', 'dog')
  assert len(data.load_dataset('emoji', res=8, channels=3).class_names) == 6
  with pytest.raises(UserError, match=r'the folder here with data.name=\./cifar10, or'):
    data.load_dataset('cifar10', res=8, channels=3)
  with pytest.raises(UserError, match="Unknown dataset 'pests'"):
    data.load_dataset('pests', res=8, channels=3)


def test_upsampling_is_refused_without_upscale(tmp_path, tiny_tfds):
  pixels = write_image_folder(tmp_path / 'pets', n=5)
  prepare.main([str(tmp_path / 'pets'), str(tmp_path / 'set')])
  for name in ('pets', 'set'):
    path = str(tmp_path / name)
    with pytest.raises(
      UserError, match=r'model.res is 32, .*\(median of the shorter side: 16 pix'
    ):
      data.load_dataset(path, res=32, channels=3)
    large = data.load_dataset(path, res=32, channels=3, upscale=True)
    back = decode.area_downsample(read_examples(large.examples)[0], 2)
    assert np.abs(back.astype(int) - pixels).mean() < 20
  with pytest.raises(UserError, match='shorter side: 5 pixels'):
    data.load_dataset('tiny_images', data_dir=str(tiny_tfds), res=8, channels=3)
  # Only most of the images must be large enough; built-in sets are always resized.
  data.load_dataset('tiny_images', data_dir=str(tiny_tfds), res=5, channels=3)
  data.load_dataset('digits', res=16, channels=1)


def test_more_than_a_tenth_left_out_is_refused_unless_allowed(tmp_path, caplog):
  root = tmp_path / 'pets'
  write_image_folder(root, n=18)
  table = ''.join(f'{k}/{i:03d}.png,{k}\n' for i, k in enumerate(['cat', 'dog'] * 9))
  gone = ''.join(f'cat/gone{i}.png,cat\n' for i in range(2))
  (root / 'labels.csv').write_text(f'file,label\n{table}{gone}')
  data.load_dataset(str(root), res=16, channels=3)  # 2 of 20 is a tenth
  assert '2 like cat/gone0.png (is listed in labels.csv, but' in caplog.text
  (root / 'labels.csv').write_text(f'file,label\n{table}{gone}dog/gone.png,dog\n')
  with pytest.raises(
    UserError,
    match=r'pets: 3 of 21 images would be left out, more than 10%: 3 like '
    r'cat/gone0.png \(is listed .* set data.skip_bad=True to train without them.$',
  ):
    data.load_dataset(str(root), res=16, channels=3)
  dataset = data.load_dataset(str(root), res=16, channels=3, skip_bad=True)
  assert len(dataset.examples) == 18


def test_reasons_are_counted_the_most_frequent_first():
  refused = {'a': 'is A', 'b': 'is B', 'c': 'is B', 'd': 'is D', 'e': 'is E'}
  assert count_reasons(refused, limit=2) == (
    '2 like b (is B), 1 like a (is A), 2 for other reasons'
  )


def test_a_folder_of_12_bit_images_is_scaled_by_the_range_of_the_set(tmp_path):
  ramp = np.arange(64).reshape(8, 8)
  for i in range(4):
    write_files(tmp_path, {f'{i}.png': encode((ramp * 16 * i).astype(np.uint16))})
  folder = str(tmp_path)
  dataset = data.load_dataset(folder, res=8, channels=1)
  assert '16-bit values 0 to 4095 become 0 to 255' in dataset.origin
  images, _ = read_examples(dataset.examples)
  for i in range(4):
    want = np.rint(ramp * 16 * i * 255 / 4095)
    np.testing.assert_array_equal(images[i, ..., 0], want)
  for value_range, brightest in (('full', 4), ('image', 251), ('0,100', 255)):
    dataset = data.load_dataset(folder, res=8, channels=1, value_range=value_range)
    assert dataset.examples[1][0].max() == brightest
  with pytest.raises(UserError, match="^data.range=12: 'auto' "):
    data.load_dataset('emoji', res=8, channels=1, value_range='12')
