"""Every kind of image becomes 8-bit pixels of the full resolution, or is refused."""

import dataclasses
import functools
import io

import numpy as np
import pytest
from PIL import Image

from gan_jax import prepare
from gan_jax.data import decode
from gan_jax.data.dataset import decode_and_resize
from tests.data.images import COLORS, RAMP, encode, random_image
from tests.prepare.bombs import pixel_bomb

HALF_TRANSPARENT = np.dstack([COLORS, np.where(RAMP < 128, 0, 255).astype(np.uint8)])
ON_WHITE = np.where(RAMP[..., None] < 128, 255, COLORS)
GREY = np.repeat(RAMP[..., None], 3, -1)


def options(res=8, channels=3, fit='', upscale=False, background=(255, 255, 255)):
  return prepare.PrepareOptions(res, channels, fit, upscale, background, 0, 10)


def with_palette():
  image = Image.fromarray((RAMP > 100).astype(np.uint8), 'P')
  image.putpalette([10, 20, 30, 200, 100, 50])
  return encode(image, transparency=0)


def with_orientation(orientation):
  """COLORS as a camera stores it that was held so."""
  return stored_as(Image.fromarray(COLORS), orientation)


def stored_as(image, orientation, kind='PNG'):
  """An image as a camera stores it that was held so."""
  stored = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
  }.get(orientation)
  exif = Image.Exif()
  exif[0x0112] = orientation
  return encode(
    image.transpose(stored) if stored is not None else image, kind, exif=exif
  )


@pytest.mark.filterwarnings('ignore:.*mode.*parameter:DeprecationWarning')
@pytest.mark.parametrize(
  ('content', 'want', 'tolerance'),
  [
    (lambda: encode(COLORS), COLORS, 0),
    (lambda: encode(RAMP), GREY, 0),
    (lambda: encode(RAMP > 100), np.where(GREY > 100, 255, 0), 0),
    (lambda: encode(RAMP.astype(np.uint16) * 257), GREY, 0),
    (lambda: encode(RAMP.astype(np.uint16) * 257 + 128), GREY, 0),
    (lambda: encode(RAMP.astype(np.uint16) * 257, 'TIFF'), GREY, 0),
    (lambda: encode(RAMP.astype(np.int32) * 257, 'TIFF'), GREY, 0),
    (lambda: encode(HALF_TRANSPARENT), ON_WHITE, 0),
    (
      lambda: encode(Image.fromarray(HALF_TRANSPARENT).convert('LA')),
      np.where(
        RAMP[..., None] < 128, 255, Image.fromarray(COLORS).convert('L').convert('RGB')
      ),
      0,
    ),
    (
      with_palette,
      np.where(RAMP[..., None] > 100, np.array([[[200, 100, 50]]]), 255),
      0,
    ),
    *((functools.partial(with_orientation, o), COLORS, 0) for o in range(2, 9)),
    (lambda: encode(COLORS, 'WEBP', lossless=True), COLORS, 0),
    (
      lambda: encode(
        Image.fromarray(COLORS).convert('CMYK'), 'JPEG', quality=100, subsampling=0
      ),
      COLORS,
      4,
    ),
  ],
)
def test_all_kinds_of_pixels_become_8_bit_rgb(content, want, tolerance):
  image = prepare.fit_image(content(), options()).pixels
  assert image.dtype == np.uint8 and image.shape == (8, 8, 3)
  assert np.abs(image.astype(int) - want).max() <= tolerance


def test_channels_and_background():
  grey = prepare.fit_image(encode(COLORS), options(channels=1)).pixels
  want = COLORS @ np.array([0.299, 0.587, 0.114])
  assert grey.shape == (8, 8, 1) and np.abs(grey[..., 0] - want).max() < 1
  transparent = encode(HALF_TRANSPARENT)
  rgba = prepare.fit_image(transparent, options(channels=4)).pixels
  np.testing.assert_array_equal(rgba, HALF_TRANSPARENT)
  on_blue = prepare.fit_image(transparent, options(background=(0, 0, 255))).pixels
  np.testing.assert_array_equal(
    on_blue, np.where(RAMP[..., None] < 128, np.array([[[0, 0, 255]]]), COLORS)
  )


def test_crop_pad_and_upscale():
  wide = np.concatenate([COLORS, COLORS[::-1]], 1)  # 16 x 8
  content = encode(wide)
  with pytest.raises(
    decode.UnusableImageError, match=r'is 16 x 8, not square \(use --crop or'
  ):
    prepare.fit_image(content, options())
  cropped = prepare.fit_image(content, options(fit='crop')).pixels
  np.testing.assert_array_equal(cropped, wide[:, 4:12])
  _, padded, box = prepare.fit_image(
    content, options(res=16, fit='pad', background=(9, 8, 7))
  )
  assert box == (4, 0, 12, 16)
  want = np.full((16, 16, 3), np.array([[[9, 8, 7]]]), np.uint8)
  want[4:12] = wide
  np.testing.assert_array_equal(padded, want)
  with pytest.raises(
    decode.UnusableImageError, match=r'is 8 x 8, smaller than 16 \(use --upscale'
  ):
    prepare.fit_image(encode(COLORS), options(res=16))
  large = prepare.fit_image(encode(COLORS), options(res=16, upscale=True)).pixels
  back = decode.area_downsample(large[None], 2)[0]
  assert np.abs(back.astype(int) - COLORS).mean() < 5


@pytest.mark.parametrize(
  ('res', 'fit', 'box'),  # box: where the image is, or the square of it that is kept
  [(12, 'pad', (2, 10, 2, 10)), (12, 'crop', (2, 10, 2, 10)), (10, '', (1, 9, 1, 9))],
)
def test_a_border_surrounds_smaller_images(res, fit, box):
  top, bottom, left, right = box
  want = np.full((res, res, 3), np.array([[[9, 8, 7]]]), np.uint8)
  want[top:bottom, left:right] = COLORS
  background = (9, 8, 7)
  border = dataclasses.replace(
    options(res=res, fit=fit, background=background), border=True
  )
  _, image, content = prepare.fit_image(encode(COLORS), border)
  np.testing.assert_array_equal(image, want)
  assert content == (top, left, bottom, right)
  # Larger images are downsampled as without it.
  large = encode(COLORS.repeat(2 * res // 8 + 1, 0).repeat(2 * res // 8 + 1, 1))
  plain = dataclasses.replace(border, border=False)
  np.testing.assert_array_equal(
    prepare.fit_image(large, border)[1], prepare.fit_image(large, plain)[1]
  )


@pytest.mark.parametrize(
  ('shape', 'res', 'fit', 'border', 'box'),
  [
    ((300, 500), 256, 'pad', False, (51, 0, 205, 256)),  # 51.2 to 204.8
    ((1, 8), 4, 'pad', False, (1, 0, 2, 4)),  # half of a row
    ((1, 900), 4, 'pad', False, (2, 0, 3, 4)),  # never empty
    ((4, 7), 16, 'pad', True, (5, 4, 9, 11)),
    ((5, 9), 16, 'crop', True, (5, 5, 10, 10)),
    ((8, 8), 16, '', False, (0, 0, 16, 16)),
    ((16, 16), (6, 8), 'pad', False, (0, 1, 6, 7)),
    ((4, 16), (8, 6), 'pad', False, (3, 0, 5, 6)),
    ((4, 6), (12, 16), 'pad', True, (3, 5, 7, 11)),
    ((9, 20), (12, 16), 'crop', True, (1, 2, 10, 14)),
    ((9, 12), (6, 8), '', False, (0, 0, 6, 8)),
  ],
)
def test_where_the_image_is_within_its_padding(shape, res, fit, border, box):
  with_border = dataclasses.replace(options(res=res, fit=fit), border=border)
  white = np.full((*shape, 3), 255, np.uint8)
  black = dataclasses.replace(
    with_border, background=(0, 0, 0), channels=1, upscale=not border
  )
  fitted = prepare.fit_image(encode(white), black)
  assert fitted.content == box
  if shape[0] > 1:
    rows, columns = (np.nonzero(fitted.pixels[..., 0].max(i) > 127)[0] for i in (1, 0))
    assert (rows[0], columns[0], rows[-1] + 1, columns[-1] + 1) == box


def test_the_box_is_rotated_like_the_image():
  image = Image.new('RGB', (16, 8), 'white')
  file = io.BytesIO()
  exif = Image.Exif()
  exif[0x0112] = 6  # rotated by 90 degrees
  image.save(file, 'PNG', exif=exif)
  black = options(res=16, fit='pad', background=(0, 0, 0))
  fitted = prepare.fit_image(file.getvalue(), black)
  assert fitted.content == (0, 4, 16, 12)
  assert (fitted.pixels[:, 4:12] == 255).all() and not fitted.pixels[:, :4].any()


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('kind', ['PNG', 'TIFF'])
def test_photographs_of_any_orientation_fill_a_shape(orientation, kind, rng_seed):
  """Those that a camera stores lying on their side too, with their rows as columns."""
  photo = random_image(np.random.default_rng(rng_seed), 24, 40)
  want = photo[:, 4:36].reshape(12, 2, 16, 2, 3).mean((1, 3), dtype=np.float64)
  content = stored_as(Image.fromarray(photo), orientation, kind)
  assert decode.header_size(decode.open_image(content)) == (40, 24)
  fitted = prepare.fit_image(content, options(res=(12, 16), fit='crop'))
  for pixels in (fitted.pixels, decode_and_resize(content, (12, 16), 3)):
    assert np.abs(pixels - want).max() <= 1
  with pytest.raises(decode.UnusableImageError, match='24, not of the shape of 16 x'):
    prepare.fit_image(content, options(res=(12, 16)))
  with pytest.raises(decode.UnusableImageError, match='40 x 24, smaller than 24 x 32'):
    prepare.fit_image(content, options(res=(32, 24), fit='crop'))


@pytest.mark.parametrize(
  ('fit', 'want'),
  [
    ('pad', [[0, 0, 0, 0], [1, 2, 3, 4], [0, 0, 0, 0], [0, 0, 0, 0]]),
    ('crop', [[0, 0, 0, 0], [0, 3, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]),
  ],
)
def test_a_border_follows_after_padding_or_cropping(fit, want):
  row = np.arange(1, 5, dtype=np.uint8)[None]  # 4 x 1
  border = prepare.PrepareOptions(4, 1, fit, False, (0, 0, 0), 0, 10, border=True)
  image = prepare.fit_image(encode(row), border).pixels
  np.testing.assert_array_equal(image[..., 0], want)


@pytest.mark.parametrize(
  ('content', 'reason'),
  [
    (lambda: b'', 'is not an image'),
    (lambda: b'not an image at all', 'is not an image'),
    (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>', 'is not an image'),
    (lambda: b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n', 'is not an image'),
    (pixel_bomb, 'declares more than 67,108,864 pixels'),
    (
      lambda: pixel_bomb(9000, 9000),
      'declares 9000 x 9000 pixels, more than 67,108,864',
    ),
    (lambda: encode(COLORS, 'JPEG')[:-40], 'cannot be decoded .*[Tt]runcated'),
    (lambda: encode(COLORS)[:60], 'cannot be decoded'),
    (
      lambda: encode(np.full((8, 8), np.nan, np.float32), 'TIFF'),
      'values that are not finite',
    ),
  ],
)
def test_unusable_images_are_refused(content, reason):
  with pytest.raises(decode.UnusableImageError, match=reason):
    prepare.fit_image(content(), options())
