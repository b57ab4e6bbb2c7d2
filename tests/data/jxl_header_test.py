"""The size of a JPEG XL image is known before it is decoded."""

import numpy as np
import pytest

from gan_jax.data import decode
from gan_jax.data.jxl_header import jxl_size
from tests.data.images import encode


@pytest.mark.parametrize('use_container', [False, True])
@pytest.mark.parametrize(
  'size',
  [(8, 8), (64, 64), (1, 1), (7, 300), (600, 500), (160, 90), (9000, 2), (48, 40)],
)
def test_the_declared_size_is_that_of_the_image(size, use_container):
  pytest.importorskip('pillow_jxl')
  pixels = np.zeros((size[1], size[0], 3), np.uint8)
  content = encode(pixels, 'JXL', effort=1, use_container=use_container)
  assert jxl_size(content) == size == decode.open_image(content).size
  with pytest.raises(
    decode.UnusableImageError, match=f'{size[0]} x {size[1]} pixels, m'
  ):
    decode.open_image(content, max_pixels=size[0] * size[1] - 1)


def test_a_bomb_is_refused_before_its_pixels_are_decoded():
  # not small, 30 bits: 2**30 x 2**30 pixels, and nothing else
  header = 0 | 3 << 1 | (2**30 - 1) << 3 | 0 << 33 | 3 << 36 | (2**30 - 1) << 38
  content = b'\xff\x0a' + header.to_bytes(9, 'little')
  with pytest.raises(
    decode.UnusableImageError, match='declares 1073741824 x 1073741824'
  ):
    decode.open_image(content)


def test_other_content_has_no_such_size(rng_seed):
  rng = np.random.default_rng(rng_seed)
  assert jxl_size(encode(np.zeros((8, 8, 3), np.uint8))) is None
  container = b'\0\0\0\x0cJXL \r\n\x87\n'
  assert jxl_size(container) is None
  for _ in range(100):
    jxl_size(container + rng.integers(0, 256, 60, np.uint8).tobytes())
