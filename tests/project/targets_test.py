"""Target images: crop, channels, and files that are none."""

import numpy as np
import pytest
from PIL import Image

from gan_jax import UserError
from gan_jax.project.targets import read_targets

WHITE = (255, 255, 255)


@pytest.fixture
def wide(tmp_path):
  """16 x 8 pixels: red, a green square of 8 in the middle, red."""
  image = Image.new('RGB', (16, 8), (255, 0, 0))
  image.paste((0, 255, 0), (4, 0, 12, 8))
  image.save(tmp_path / 'wide.png')
  return tmp_path / 'wide.png'


@pytest.mark.parametrize('channels', [1, 3, 4])
def test_the_centered_square_in_the_channels_of_the_model(wide, channels):
  images = read_targets([wide, wide], 4, channels, False, WHITE).images
  green = {1: [150], 3: [0, 255, 0], 4: [0, 255, 0, 255]}[channels]
  np.testing.assert_array_equal(images, np.broadcast_to(green, (2, 4, 4, channels)))


def test_padding_and_transparency_have_the_background(wide, tmp_path):
  blue = (0, 0, 255)
  padded = read_targets([wide], 8, 3, True, blue).images[0]
  np.testing.assert_array_equal(padded[[0, 1, 6, 7]], np.broadcast_to(blue, (4, 8, 3)))
  Image.new('RGBA', (5, 5), (9, 9, 9, 0)).save(tmp_path / 'clear.png')
  clear = read_targets([tmp_path / 'clear.png'], 4, 3, False, blue).images
  np.testing.assert_array_equal(clear, np.broadcast_to(blue, (1, 4, 4, 3)))


def test_small_images_are_enlarged(tmp_path):
  Image.new('L', (2, 2), 7).save(tmp_path / 'small.png')
  images = read_targets([tmp_path / 'small.png'], 16, 1, False, WHITE).images
  np.testing.assert_array_equal(images, np.full((1, 16, 16, 1), 7))


def test_what_is_no_image_is_named(tmp_path):
  (tmp_path / 'text.png').write_text('no image')
  (tmp_path / 'empty.png').touch()
  for name, sentence in (
    ('text.png', 'text.png .*: give an image, such as a PNG'),
    ('empty.png', 'empty.png .*: give an image'),
    ('none.png', 'none.png cannot be read: No such file or directory'),
    ('.', r'is a folder: give images, such as .*/\*.png'),
  ):
    with pytest.raises(UserError, match=sentence):
      read_targets([tmp_path / name], 4, 3, False, WHITE)
  with pytest.raises(UserError, match='model.channels is 2, and images have 1, 3, 4'):
    read_targets([tmp_path / 'text.png'], 4, 2, False, WHITE)
