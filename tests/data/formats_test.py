"""Formats are recognised by content; what needs a plugin or is no image is named."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from gan_jax.data import decode, formats
from gan_jax.data.dataset import decode_and_resize
from tests.data.images import encode

X, Y = np.meshgrid(np.arange(32), np.arange(32))
SMOOTH = np.stack([X * 7, Y * 7, X * 0 + 63], -1).astype(np.uint8)


@pytest.fixture
def without_plugins(monkeypatch):
  """The formats that pillow reads without any plugin, and without AVIF."""
  caches = formats.readable_formats, formats.readable_suffixes
  for cached in caches:
    cached.cache_clear()
  for module in ('pillow_avif', 'pillow_heif', 'pillow_jxl'):
    monkeypatch.setitem(sys.modules, module, None)
  monkeypatch.setattr('PIL.features.check', lambda name: name != 'avif')
  yield
  for cached in caches:
    cached.cache_clear()


@pytest.mark.parametrize(
  ('kind', 'module', 'suffix'),
  [
    ('AVIF', 'PIL', '.avif'),
    ('HEIF', 'pillow_heif', '.heic'),
    ('JXL', 'pillow_jxl', '.jxl'),
  ],
)
def test_formats_of_plugins_are_read_by_their_content(kind, module, suffix):
  pytest.importorskip(module)
  assert kind in formats.readable_formats() and suffix in formats.readable_suffixes()
  assert formats.unreadable_format(suffix.upper()) == ''
  content = encode(SMOOTH, kind, quality=95)
  assert Image.open(io.BytesIO(content)).format == kind
  pixels = decode_and_resize(content, 32, 3)
  assert np.abs(pixels.astype(int) - SMOOTH).mean() < 4


@pytest.mark.parametrize(
  ('suffix', 'content', 'reason'),
  [
    ('.avif', b'\0\0\0\x20ftypavif', 'is of the format AVIF, which needs a package: '),
    ('.HEIC', b'\0\0\0\x18ftypheic', '.* HEIF, .* pip install pillow-heif'),
    ('.jxl', b'\xff\x0a', '.* JXL, .* pip install pillow-jxl-plugin'),
  ],
)
def test_formats_without_their_plugin_are_named(
  without_plugins, suffix, content, reason
):
  assert suffix.lower() not in formats.readable_suffixes()
  with pytest.raises(decode.UnusableImageError, match=reason):
    decode.open_image(content + bytes(100))
  assert formats.unreadable_format(suffix) == formats.unidentified_content(content)


def test_suffixes_of_images_are_told_from_others():
  for suffix in ('.JPE', '.jfif', '.Png', '.tiff'):
    assert suffix.lower() in formats.readable_suffixes()
    assert formats.unreadable_format(suffix) == ''
  for suffix in ('.txt', '.json', '', '.py'):
    assert formats.unreadable_format(suffix) == ''
  assert 'is of the format SVG, which is not read' in formats.unreadable_format('.svg')


@pytest.mark.parametrize(
  ('content', 'reason'),
  [
    (b'\n<!DOCTYPE html><html>', 'is not an image but a web page'),
    (b'version https://git-lfs.github.com/spec/v1\n', 'but a Git LFS pointer'),
    (b'II*\0' + bytes(60), 'is a TIFF file that is corrupted or of an unknown'),
    (b'plain text', r'is not an image \(supported formats: BMP, GIF, JPEG, '),
  ],
)
def test_content_that_is_no_image_is_named(content, reason):
  with pytest.raises(decode.UnusableImageError, match=reason):
    decode.open_image(content)


@pytest.mark.filterwarnings('ignore::UserWarning')  # of pillow, on corrupted metadata
@pytest.mark.parametrize('kind', ['AVIF', 'GIF', 'HEIF', 'JPEG', 'JXL', 'TIFF', 'WEBP'])
def test_damaged_images_are_unusable_and_nothing_worse(kind, rng_seed):
  if kind not in formats.readable_formats():
    pytest.skip(f'{kind} needs a plugin')
  rng = np.random.default_rng(rng_seed)
  content, n_unusable = encode(SMOOTH, kind), 0
  for _ in range(40):
    corrupted = bytearray(content)
    if rng.random() < 0.3:
      corrupted = corrupted[: int(rng.integers(1, len(corrupted)))]
    for place in rng.integers(0, len(corrupted), 4).tolist():
      corrupted[place] = int(rng.integers(256))
    try:
      decode_and_resize(bytes(corrupted), 8, 3)
    except decode.UnusableImageError as error:
      n_unusable += 1
      assert '\n' not in str(error)
  assert n_unusable > 0
