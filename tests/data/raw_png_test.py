"""Raw PNGs: valid PNGs that are read fast; other and corrupted PNGs."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image

from gan_jax.data import decode, raw_png
from gan_jax.data.dataset import decode_and_resize
from tests.data.images import encode


@pytest.mark.parametrize('channels', [1, 3, 4])
def test_raw_pngs_are_valid_pngs(channels, rng_seed):
  rng = np.random.default_rng(rng_seed)
  for side in (4, 150):  # 150 x 150 x 3 bytes are more than one block of zlib
    pixels = rng.integers(0, 256, (side, side, channels), np.uint8)
    content = raw_png.encode_raw_png(pixels)
    image = Image.open(io.BytesIO(content))
    image.verify()
    image = np.asarray(Image.open(io.BytesIO(content))).reshape(pixels.shape)
    np.testing.assert_array_equal(image, pixels)
    np.testing.assert_array_equal(raw_png.decode_raw_png(content, pixels.shape), pixels)
    assert len(content) < pixels.size + side + 100


def test_other_and_corrupted_pngs_are_not_decoded(rng_seed):
  rng = np.random.default_rng(rng_seed)
  y, x = np.mgrid[:64, :64]
  ramps = np.stack([x, y, x + y], -1).astype(np.uint8)  # PIL filters its rows
  shape = ramps.shape
  for level in (0, 6):
    other = encode(ramps, compress_level=level)
    assert raw_png.decode_raw_png(other, shape) is None
    np.testing.assert_array_equal(decode_and_resize(other, 64, 3), ramps)
  content = raw_png.encode_raw_png(ramps)
  for other_shape in ((32, 64, 3), (64, 64, 1), (64, 64, 4)):
    assert raw_png.decode_raw_png(content, other_shape) is None
  assert raw_png.decode_raw_png(b'', shape) is None
  place = int(rng.integers(100, len(content) - 100))
  flipped_bit = bytes([content[place] ^ 1])
  for corrupted in (
    content[:place] + flipped_bit + content[place + 1 :],
    content[:place],
    content[:41] + zlib.compress(bytes(99), 0).ljust(len(content)),
  ):
    with pytest.raises(decode.UnusableImageError, match='cannot be decoded'):
      raw_png.decode_raw_png(corrupted, shape)
