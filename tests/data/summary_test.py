"""The summary of a dataset: its lines of text and its image grid."""

import numpy as np
from PIL import Image

from gan_jax import data
from tests.data.images import encode, write_image_folder


def test_summary(tmp_path):
  pixels = write_image_folder(tmp_path / 'pets', n=21).astype(float)
  flat = np.full((16, 24, 3), 7, np.uint8)
  for name in ('a', 'b'):
    (tmp_path / 'pets' / 'dog' / f'{name}.png').write_bytes(encode(flat))
  pets = data.load_dataset(str(tmp_path / 'pets'), res=16, channels=3)
  text = data.summarize(pets, tmp_path / 'run')
  values = np.concatenate([pixels, np.full((2, 16, 16, 3), 7.0)])
  lines = text.splitlines()
  assert '23 images, read as 16 x 16 x 3 (folder, 0 image files left out' in lines[0]
  assert lines[1] == 'labels: dog 12, cat 11'
  mean = ' '.join(f'{x:.1f}' for x in values.mean((0, 1, 2)))
  deviation = ' '.join(f'{x:.1f}' for x in values.std((0, 1, 2)))
  assert lines[2] == (
    f'pixel values of 23 images: mean {mean}, standard deviation {deviation}, range '
    f'{int(values.min())} to {int(values.max())}'
  )
  assert lines[3:] == [
    'note: 2 of 23 images have a single color',
    'note: 1 of 23 images are exact copies of other images',
    'note: 2 of 23 images are not square: the center is used',
    f'image grid: {tmp_path / "run" / "data.png"}',
  ]
  page = np.asarray(Image.open(tmp_path / 'run' / 'data.png'))
  # Five columns of images upsampled to 48 pixels, then a bar for each class.
  np.testing.assert_array_equal(page[2:50:3, 2:50:3], pixels[0])
  assert page.shape == (5 * 50 + 2 + 3 * 12, 400, 3)


def test_counts_that_are_known_are_not_sampled(tmp_path):
  synthetic = data.load_dataset('synthetic', res=8, channels=1)
  assert 'labels: 0 1,000, 1 1,000' in data.summarize(synthetic, tmp_path)


def test_images_that_are_not_square(tmp_path):
  pixels = write_image_folder(tmp_path / 'pets', n=4).astype(float)
  pets = data.load_dataset(str(tmp_path / 'pets'), res=(12, 16), channels=3)
  lines = data.summarize(pets, tmp_path / 'run').splitlines()
  assert '4 images, read as 16 x 12 x 3' in lines[0]
  assert 'note: 4 of 4 images do not have the shape of 16 x 12: the center is used' in (
    lines
  )
  page = np.asarray(Image.open(tmp_path / 'run' / 'data.png'))
  np.testing.assert_array_equal(page[2:38:3, 2:50:3], pixels[0][2:14])
