"""Datasets: downsampled, with corrupted images skipped, decoded from JPEG drafts."""

import io

import numpy as np
import pytest
from PIL import Image

from gan_jax import UserError, data
from gan_jax.data import decode
from gan_jax.data.dataset import decode_and_resize
from gan_jax.data.tfds_source import EncodedRecords
from tests.data.images import encode, write_image_folder


@pytest.mark.parametrize('name', ['digits', 'synthetic'])
def test_downsampled_pixels_are_means_rounded_once(name):
  full = data.load_dataset(name, res=16, channels=1)
  quarter = full.downsampled(4)
  assert (quarter.name, quarter.n_classes) == (name, 10)
  for i in (0, 7):
    image, label = quarter.examples[i]
    want = full.examples[i][0].astype(float).reshape(4, 4, 4, 4).mean((1, 3))
    np.testing.assert_array_equal(image[..., 0], np.rint(want))
    assert label == full.examples[i][1]
  assert len(quarter.examples) == len(full.examples)


def test_corrupted_images_fail_by_name_or_are_skipped_and_counted(tmp_path, caplog):
  write_image_folder(tmp_path / 'pets')
  for name in ('cat/004.png', 'cat/006.png', 'dog/019.png'):  # indices 2, 3 and 19
    path = tmp_path / 'pets' / name
    path.write_bytes(path.read_bytes()[:100])
  folder = str(tmp_path / 'pets')
  strict = data.load_dataset(folder, res=16, channels=3)
  with pytest.raises(
    data.CorruptImageError, match=r'cat/004.png of .*pets cannot be decoded \('
  ):
    strict.examples[2]
  lenient = data.load_dataset(folder, res=16, channels=3, skip_bad=True)
  assert len(lenient.examples) == 20
  for index, read in ((2, 4), (3, 4), (19, 0), (2, 4), (5, 5)):
    image, label = lenient.examples[index]
    np.testing.assert_array_equal(image, strict.examples[read][0])
    assert label == strict.examples[read][1]
  assert 'cat/004.png' in caplog.text and 'images skipped: 3.' in caplog.text
  small = lenient.downsampled(4)
  np.testing.assert_array_equal(
    small.examples[3][0], strict.downsampled(4).examples[4][0]
  )
  assert sorted(small.examples.skipped) == [2, 3, 19]
  for path in (tmp_path / 'pets').rglob('*.png'):
    path.write_bytes(b'')
  with pytest.raises(UserError, match='None of the 20 images can be decoded'):
    data.load_dataset(folder, res=16, channels=3, skip_bad=True).examples[0]


def test_photos_are_cropped_and_downsampled():
  """JPEG with the drafted decoder against a plain mean over the centered square."""
  y, x = np.mgrid[:256, :512]
  photo = np.stack([y, 255 * (x >= 256), 255 - y], axis=-1).astype(np.uint8)
  jpeg = encode(photo, 'JPEG', quality=95, subsampling=0)
  records = [{'image': jpeg, 'label': 3}]
  image, label = EncodedRecords('photos', records, (16, 16), 3, labeled=True)[0]
  want = photo[:, 128:384].reshape(16, 16, 16, 16, 3).mean(axis=(1, 3))
  assert label == 3 and np.abs(image - want).max() < 4
  image, _ = EncodedRecords('photos', records, (64, 64), 3, labeled=True)[0]
  assert np.all(image[:, 32, 1] > image[:, 31, 1] + 200), 'the edge stays sharp'
  # A factor that is not an integer, and a set without labels.
  image, label = EncodedRecords('photos', records, (24, 24), 1, labeled=False)[0]
  assert image.shape == (24, 24, 1) and label == 0
  assert abs(image.mean() - (photo[:, 128:384] @ [0.299, 0.587, 0.114]).mean()) < 1


@pytest.mark.parametrize('orientation', [1, 6, 8])
@pytest.mark.parametrize('size', [(500, 375), (375, 501), (259, 386)])
def test_the_center_of_a_drafted_photo_is_the_center_of_the_photo(size, orientation):
  x, y = np.meshgrid(*map(np.arange, size))
  waves = [np.sin(x / 9), np.sin(y / 11), np.sin((x + y) / 13)]
  photo = np.rint(127.5 + 120 * np.stack(waves, -1)).astype(np.uint8)
  exif = Image.Exif()
  exif[0x0112] = orientation
  jpeg = encode(photo, 'JPEG', quality=98, subsampling=0, exif=exif)
  assert Image.open(io.BytesIO(jpeg)).draft('RGB', (64, 64)), 'large enough to draft'
  image = decode.open_image(jpeg)
  cropped = decode.center_crop_resize(decode.decode_pixels(image, 3), 32)
  want = decode.apply_orientation(cropped, image)
  # A quarter of an output pixel off the center would give 5 and more.
  assert np.abs(decode_and_resize(jpeg, 32, 3) - want.astype(int)).mean() < 1.5
