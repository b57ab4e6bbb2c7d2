"""tensorflow-datasets sets: read exactly, without TensorFlow; what is refused."""

import json
import sys

import numpy as np
import pytest

from gan_jax import UserError, data


def test_tfds_reads_back_exactly_without_tensorflow(tiny_tfds, tall_image):
  images = data.load_dataset('tiny_images', data_dir=str(tiny_tfds), res=5, channels=3)
  assert images.class_names == ('flat', 'tall', 'broken')
  assert len(images.examples) == 3
  # TFDS shuffles what it stores: identify each image by its expected pixels.
  read = {
    image.tobytes(): label
    for image, label in map(images.examples.__getitem__, range(3))
  }
  assert (
    read
    == {
      np.full((5, 5, 3), 9, np.uint8).tobytes(): 0,
      tall_image[2:7].tobytes(): 1,  # the centered square
      tall_image[:5].tobytes(): 0,
    }
  )
  part = data.load_dataset(
    'tiny_images:1.0.0', split='train[1:]', data_dir=str(tiny_tfds), res=4, channels=1
  )
  assert len(part.examples) == 2 and part.examples[0][0].shape == (4, 4, 1)
  assert 'tensorflow' not in sys.modules


def test_unknown_and_unprepared_sets_and_splits_are_refused(tiny_tfds):
  options = {'data_dir': str(tiny_tfds), 'res': 4, 'channels': 3}
  with pytest.raises(UserError, match="in split 'test'; its splits are train, broken"):
    data.load_dataset('tiny_images', split='test', **options)
  with pytest.raises(UserError, match=r"no images in split 'train\[:0\]'"):
    data.load_dataset('tiny_images', split='train[:0]', **options)
  broken = data.load_dataset('tiny_images', split='broken', **options)
  batches = data.iterate_batches(
    broken, shape=(1, 1), devices=(0,), n_devices=1, seed=0, start=0, flip=False
  )
  with pytest.raises(UserError, match="Image 0 of dataset 'tiny_images' cannot be"):
    next(batches)
  with pytest.raises(
    UserError, match='most similar known names are cifar10'
  ) as unknown:
    data.load_dataset('ciphar10', **options)
  assert str(tiny_tfds) in str(unknown.value)
  with pytest.raises(UserError, match='most similar known names are emoji'):
    data.load_dataset('emojis', **options)
  with pytest.raises(UserError, match='download_and_prepare') as unprepared:
    data.load_dataset('cifar10', **options)
  assert f"tfds.builder('cifar10', data_dir='{tiny_tfds}')" in str(unprepared.value)


def test_sets_of_another_format_or_without_images_are_refused(tiny_tfds, tmp_path):
  source, folder = (x / 'tiny_images/1.0.0' for x in (tiny_tfds, tmp_path))
  info = json.loads((source / 'dataset_info.json').read_text())
  folder.mkdir(parents=True)
  for file in source.iterdir():
    copy = folder / file.name.replace('array_record', 'tfrecord')
    copy.write_bytes(file.read_bytes())
  (folder / 'dataset_info.json').write_text(
    json.dumps(info | {'fileFormat': 'tfrecord'})
  )
  with pytest.raises(UserError, match='as tfrecord, but array_record is needed'):
    data.load_dataset('tiny_images', data_dir=str(tmp_path), res=4, channels=3)

  description = json.loads((folder / 'features.json').read_text())
  features = description['featuresDict']['features']
  features['photo'] = features.pop('image')
  (folder / 'features.json').write_text(json.dumps(description))
  with pytest.raises(UserError, match='label, mask, photo, but a uint8 image feature'):
    data.load_dataset('tiny_images', data_dir=str(tmp_path), res=4, channels=3)
