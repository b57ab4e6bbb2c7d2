"""Images of more than 8 bits are scaled by the range they use; none turns black."""

import io

import numpy as np
import pytest
from PIL import Image

from gan_jax import UserError
from gan_jax.data import decode, depth
from gan_jax.data.dataset import decode_and_resize
from tests.data.deep_images import encode_png16, encode_tiff16
from tests.data.images import COLORS, RAMP, encode, random_image

GREY = np.repeat(RAMP[..., None], 3, -1)
TWELVE_BITS = {depth.INT16: (0, 4095)}


def decoded(content, channels=3, ranges=None):
  image = decode.open_image(content)
  return np.asarray(decode.decode_pixels(image, channels, ranges=ranges))


def pfm(values) -> bytes:
  file = io.BytesIO()
  Image.fromarray(values.astype(np.float32)).save(file, 'PPM')
  return file.getvalue()


def pgm(values, maximum) -> bytes:
  h, w = values.shape
  return b'P5 %d %d %d\n' % (w, h, maximum) + values.astype('>u2').tobytes()


@pytest.mark.parametrize(
  'content',
  [
    # 12 bits in 16, of which the low 4 of each byte pair would be lost
    lambda: encode((RAMP * 16.0).astype(np.uint16)),
    lambda: encode_png16(np.repeat(RAMP[..., None] * 16.0, 3, -1)),
    lambda: encode_tiff16(RAMP[..., None] * 16.0, order='>'),
    # 8 bits in 16 and in 32, and 10 bits
    lambda: encode(RAMP.astype(np.uint16)),
    lambda: encode(RAMP.astype(np.int32), 'TIFF'),
    lambda: encode((RAMP * 4.0).astype(np.uint16), 'TIFF'),
    lambda: encode(RAMP.astype(np.int32) * 257, 'TIFF'),
    # floating point: 0..1, 0..255, and a small part of 0..1
    lambda: encode((RAMP / 255).astype(np.float32), 'TIFF'),
    lambda: encode(RAMP.astype(np.float32), 'TIFF'),
    lambda: encode((RAMP / 255 / 16).astype(np.float32), 'TIFF'),
    lambda: pfm(RAMP / 255),
    # netpbm files declare their maximum
    lambda: pgm(RAMP * 16.0, 4080),
  ],
)
def test_values_of_a_small_range_are_as_bright_as_8_bit_ones(content):
  assert np.abs(decoded(content()).astype(int) - GREY).max() <= 3
  image = decode_and_resize(content(), 8, 1)
  assert np.abs(image[..., 0].astype(int) - RAMP).max() <= 3


def test_full_16_bit_values_are_rounded_not_cut():
  for values in (RAMP.astype(np.uint16) * 257 + 128, RAMP.astype(np.uint16) * 257):
    np.testing.assert_array_equal(decoded(encode(values)), GREY)
  rgb = COLORS.astype(np.uint16) * 257 - (COLORS > 0) * np.uint16(100)
  np.testing.assert_array_equal(decoded(encode_png16(rgb)), COLORS)


@pytest.mark.parametrize('order', '<>')
@pytest.mark.parametrize(
  ('channels', 'compressed', 'planar'),
  [
    *((1, False, False), (1, True, False), (3, False, False), (3, True, False)),
    *((3, False, True), (4, False, False), (4, True, False), (4, False, True)),
  ],
)
def test_all_bits_of_tiffs_are_read(order, compressed, channels, planar, rng_seed):
  rng = np.random.default_rng(rng_seed)
  values = rng.integers(0, 4096, (9, 13, channels))
  values[0, 0] = 4095
  if channels == 4:
    values[..., 3] = 65535
  content = encode_tiff16(
    values,
    order=order,
    compressed=compressed,
    planar=planar,
    extra=(2,) if channels == 4 else (),
  )
  want = np.rint(values[..., :3] / 4095 * 255)
  got = decoded(content, channels, TWELVE_BITS).reshape(9, 13, channels)
  np.testing.assert_array_equal(got[..., :3], want)
  assert channels < 4 or (got[..., 3] == 255).all()


def test_transparency_of_16_bit_images():
  alpha = np.where(RAMP < 128, 0, 65535)
  on_white = np.where(RAMP[..., None] < 128, 255, COLORS)
  values = np.dstack([COLORS * 16.0, alpha])
  for content in (encode_png16(values), encode_tiff16(values, extra=(2,))):
    rgba = decoded(content, 4, TWELVE_BITS)
    assert np.abs(rgba[..., :3].astype(int) - COLORS).max() <= 1
    np.testing.assert_array_equal(rgba[..., 3], alpha // 257)
    assert np.abs(decoded(content, 3, TWELVE_BITS).astype(int) - on_white).max() <= 1
  half = encode_tiff16(np.full((2, 2, 4), 20000), extra=(1,))  # premultiplied
  rgba = decoded(half, 4, depth.FULL_RANGES)
  np.testing.assert_array_equal(rgba, np.full((2, 2, 4), (255, 255, 255, 78)))
  grey = encode_png16(np.dstack([RAMP * 16.0, alpha]))
  assert decoded(grey, 4, TWELVE_BITS)[..., 3].tolist() == (alpha // 257).tolist()
  assert np.abs(decoded(grey, 1, TWELVE_BITS) - on_white_grey()).max() <= 1
  for values, key in ((RAMP[..., None] * 16, (0,)), (COLORS * 16.0, (0, 0, 4080))):
    image = decoded(encode_png16(values, transparent=key), 4, TWELVE_BITS)
    np.testing.assert_array_equal(image[..., 3] == 0, (values == key).all(-1))
    assert (image[..., 3] == 0).sum() >= 1


def on_white_grey():
  return np.where(RAMP < 128, 255, RAMP).astype(int)


def test_white_may_be_zero():
  values = RAMP[..., None] * 257.0
  black_is_zero = decoded(encode_tiff16(values, photometric=1), 1)
  white_is_zero = decoded(encode_tiff16(values, photometric=0), 1)
  np.testing.assert_array_equal(white_is_zero, 255 - black_is_zero)


@pytest.mark.parametrize(
  ('kind', 'low', 'high', 'want'),
  [
    (depth.INT16, 0, 255, (0, 255)),
    (depth.INT16, 3, 256, (0, 511)),
    (depth.INT16, 0, 4017, (0, 4095)),
    (depth.INT16, 17, 40000, (0, 65535)),
    (depth.INT16, 0, 1, (0, 1)),
    (depth.INT16, 0, 0, (0, 65535)),
    (depth.INT16, 700, 700, (0, 1023)),
    (depth.INT32, -1000, 3000, (-1000, 3000)),
    (depth.FLOAT, 0, 0.97, (0, 1)),
    (depth.FLOAT, 0, 0.06, (0, 0.0625)),
    (depth.FLOAT, 0, 251.5, (0, 255)),
    (depth.FLOAT, -0.9, 0.8, (-1, 1)),
    (depth.FLOAT, -0.01, 1.02, (-0.01, 1.02)),
    (depth.FLOAT, -5, -5, (-5, -4)),
  ],
)
def test_the_range_is_that_of_the_fewest_bits(kind, low, high, want):
  assert depth.enclosing_ranges([(kind, low, high), None]) == {kind: want}


def test_the_images_of_a_set_share_a_range():
  dark, bright = (encode((RAMP * f).astype(np.uint16)) for f in (1.0, 16.0))
  spans = [decode.read_span(decode.open_image(x)) for x in (dark, bright, encode(RAMP))]
  assert spans == [('16-bit', 0, 252), ('16-bit', 0, 4032), None]
  ranges = depth.enclosing_ranges(spans)
  assert ranges == TWELVE_BITS
  assert depth.describe_ranges(ranges) == '16-bit values 0 to 4095 become 0 to 255'
  assert (
    decoded(dark, 1, ranges).max() == 16 and decoded(bright, 1, ranges).max() == 251
  )
  assert decoded(dark, 1).max() == 252, 'its own range'


def test_values_beyond_a_range_are_clipped():
  image = decoded(encode(RAMP.astype(np.uint16) * 16), 1, {depth.INT16: (400, 2000)})
  want = np.clip(np.rint((RAMP * 16.0 - 400) * 255 / 1600), 0, 255)
  np.testing.assert_array_equal(image, want)


def test_the_setting_is_checked():
  assert depth.fixed_ranges('auto', '--range') is None
  assert depth.fixed_ranges('image', '--range') == {}
  assert depth.fixed_ranges('full', '--range')[depth.INT16] == (0, 65535)
  for text in ('0,4095', '(0, 4095)', '-1e3 , 4095.5'):
    ranges = depth.fixed_ranges(text, '--range')
    assert ranges[depth.FLOAT][1] >= 4095 and len(ranges) == 3
  for text in ('', 'set', '5', '4,4', '9,1', '0,1,2', '0,inf', 'nan,1', 'a,b'):
    with pytest.raises(
      UserError, match=rf"--range={text}: 'auto' \(of the set\), .*LOW"
    ):
      depth.fixed_ranges(text, '--range')


def test_values_that_are_not_finite_are_refused():
  values = np.ones((8, 8), np.float32)
  values[3, 3] = np.nan
  content = encode(values, 'TIFF')
  for read in (decoded, lambda c: decode.read_span(decode.open_image(c))):
    with pytest.raises(decode.UnusableImageError, match='that are not finite'):
      read(content)


@pytest.mark.parametrize('keep', [0.2, 0.5, 0.9])
def test_truncated_deep_images_are_unusable(keep, rng_seed):
  values = random_image(np.random.default_rng(rng_seed), 20, 20).astype(np.uint16) * 9
  for content in (encode_png16(values), encode_png16(values[..., :2])):
    with pytest.raises(decode.UnusableImageError, match='cannot be decoded'):
      decoded(content[: int(keep * len(content))])


@pytest.mark.parametrize('mode', ['1', 'L', 'P', 'LAB', 'YCbCr', 'CMYK', 'RGBX'])
@pytest.mark.parametrize('channels', [1, 3, 4])
def test_modes_of_8_bits_keep_their_brightness(mode, channels):
  file = io.BytesIO()
  y, x = np.mgrid[:32, :32]
  smooth = np.stack([x * 8, y * 8, x * 4 + 60], -1).astype(np.uint8)
  image = Image.fromarray(smooth).convert(mode)
  image.save(file, 'PNG' if mode == '1' else 'TIFF')
  got = decoded(file.getvalue(), channels).reshape(32, 32, channels)
  if channels == 4:
    assert (got[..., 3] == 255).all()
  want = smooth if mode not in ('1', 'L', 'P') else np.asarray(image.convert('RGB'))
  grey = want @ np.array([0.299, 0.587, 0.114])
  want = grey[..., None] if channels == 1 else want
  assert np.abs(got[..., :3].astype(int) - want).mean() < 8
