"""Tests of gan_jax.data: images, labels, refusals, and the one global order."""

import hashlib
import io
import itertools
import json
import re
import signal
import subprocess
import sys
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from gan_jax import UserError, data, prepare
from gan_jax.data import dataset, decode, raw_png


class Numbered:
  """Image i is filled with i; its left column is 0, so that a flip shows."""

  def __init__(self, n):
    self.n = n

  def __len__(self):
    return self.n

  def __getitem__(self, i):
    image = np.full((2, 2, 1), i, np.uint8)
    image[:, 0] = 0
    return image, i


def global_order(
  steps, *, n=250, hosts=((0,),), shape=(1, 4), seed=0, start=0, flip=True, threads=2
):
  """(labels, mirrored) at the positions that all hosts together read in `steps`."""
  k, b = shape
  n_devices = sum(map(len, hosts))
  labels = np.full((steps, k, n_devices, b), -1)
  mirrored = np.zeros(labels.shape, bool)
  for devices in hosts:
    stream = data.iterate_batches(
      data.Dataset('numbered', Numbered(n)),
      shape=shape,
      devices=devices,
      n_devices=n_devices,
      seed=seed,
      start=start,
      flip=flip,
      threads=threads,
    )
    for step, batch in enumerate(itertools.islice(stream, steps)):
      assert batch['images'].shape == (len(devices), k, b, 2, 2, 1)
      assert batch['images'].dtype == np.uint8
      assert batch['labels'].dtype == np.int32
      for row, device in enumerate(devices):
        labels[step, :, device] = batch['labels'][row]
        left = batch['images'][row, :, :, 0, 0, 0]
        right = batch['images'][row, :, :, 0, 1, 0]
        np.testing.assert_array_equal(np.maximum(left, right), batch['labels'][row])
        mirrored[step, :, device] = left > 0
  return labels.ravel(), mirrored.ravel()


@pytest.mark.parametrize(
  ('hosts', 'shape', 'steps', 'threads'),
  [
    (((0, 1, 2, 3),), (1, 6), 20, 0),
    (((0, 1), (2, 3)), (3, 2), 20, 8),
    (((0,), (1,), (2,), (3,)), (2, 5), 12, 3),
    (((0, 3), (2, 1)), (1, 24), 5, 1),
    (((1,), (0, 2)), (4, 1), 40, 8),
  ],
)
def test_global_order_is_the_same_on_any_hosts_and_shapes(hosts, shape, steps, threads):
  labels, mirrored = global_order(480, shape=(1, 1), threads=0)
  got = global_order(steps, hosts=hosts, shape=shape, threads=threads)
  np.testing.assert_array_equal(got[0], labels)
  np.testing.assert_array_equal(got[1], mirrored)


@pytest.mark.parametrize('start', [1, 77, 249, 250, 1001])
def test_start_continues_the_same_order(start):
  labels, mirrored = global_order(300)
  got = global_order(8, hosts=((0,), (1,)), shape=(2, 3), start=start)
  np.testing.assert_array_equal(got[0], labels[start : start + 96])
  np.testing.assert_array_equal(got[1], mirrored[start : start + 96])


def test_epochs_are_different_permutations():
  labels, mirrored = global_order(250)
  epochs = labels.reshape(4, 250)
  for epoch in epochs:
    np.testing.assert_array_equal(np.sort(epoch), np.arange(250))
  for a, b in itertools.combinations([np.arange(250), *epochs], 2):
    assert (a == b).sum() < 10  # 1 is expected of independent permutations
  # Image 0 cannot show a flip, and is left out.
  flips = np.stack([m[np.argsort(e)] for m, e in zip(mirrored.reshape(4, 250), epochs)])
  assert abs(flips[:, 1:].mean() - 0.5) < 0.06
  assert all(
    abs((a == b).mean() - 0.5) < 0.12
    for a, b in itertools.combinations(flips[:, 1:], 2)
  ), 'the flip of an image must not repeat from epoch to epoch'


def test_seed_and_flip():
  labels, mirrored = global_order(100, n=100)
  again, unmirrored = global_order(100, n=100, flip=False)
  np.testing.assert_array_equal(again, labels)
  assert mirrored.any() and not unmirrored.any()
  other, other_mirrored = global_order(100, n=100, seed=1)
  assert (other == labels).mean() < 0.1
  assert abs((other_mirrored == mirrored).mean() - 0.5) < 0.12


def test_order_is_pinned():
  labels, mirrored = global_order(3, n=10, seed=7)
  found = labels.tolist(), mirrored.astype(int).tolist()
  assert found == (
    [8, 4, 1, 6, 3, 2, 7, 5, 9, 0, 3, 9],
    [0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0],
  ), 'old runs would no longer resume on the images that they would have seen'


def test_a_set_smaller_than_a_batch_repeats():
  labels, _ = global_order(2, n=3, shape=(2, 6), flip=False)
  np.testing.assert_array_equal(np.sort(labels.reshape(-1, 3)), [[0, 1, 2]] * 8)


def test_emoji():
  emoji = data.load_dataset('emoji', res=64, channels=3)
  assert (emoji.n_classes, emoji.class_names[2]) == (9, 'Flags')
  images, labels = zip(*(emoji.examples[i] for i in range(len(emoji.examples))))
  images = np.stack(images)
  assert images.shape == (1906, 64, 64, 3) and images.dtype == np.uint8
  assert np.bincount(labels).tolist() == [85, 159, 270, 131, 264, 386, 169, 224, 218]
  assert images[0, 32, 32].tolist() == [251, 226, 46]
  assert images[:, 0, 0].min(axis=1).mean() > 250, 'the background is white'
  # Half the side is the mean of 2 x 2 pixels, and grey the ITU-R 601 mix.
  half, _ = data.load_dataset('emoji', res=32, channels=3).examples[5]
  mean = images[5].reshape(32, 2, 32, 2, 3).mean(axis=(1, 3))
  assert np.abs(half - mean).max() <= 1, 'PIL rounds after each of the two axes'
  grey, _ = data.load_dataset('emoji', res=64, channels=1).examples[5]
  assert np.abs(grey[..., 0] - images[5] @ [0.299, 0.587, 0.114]).max() < 1


def test_digits():
  digits = data.load_dataset('digits', res=8, channels=1)
  images = np.stack([digits.examples[i][0] for i in range(1797)])
  assert len(digits.examples) == 1797 and digits.n_classes == 10
  assert images.shape[1:] == (8, 8, 1) and images.dtype == np.uint8
  assert (images.min(), images.max()) == (0, 255)
  assert images[0, 0, :, 0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]
  assert [digits.examples[i][1] for i in range(5)] == [0, 1, 2, 3, 4]
  large, _ = data.load_dataset('digits', res=16, channels=1).examples[0]
  assert large.shape == (16, 16, 1)
  back = large[..., 0].reshape(8, 2, 8, 2).mean(axis=(1, 3))
  assert np.abs(back - images[0, ..., 0]).mean() < 15, 'enlarged, not moved'
  assert len(np.unique(large)) > 40, 'enlarged smoothly, not by repeating pixels'


@pytest.mark.parametrize(('res', 'channels'), [(4, 1), (33, 3)])
def test_synthetic(res, channels):
  a, b = (data.load_dataset('synthetic', res=res, channels=channels) for _ in range(2))
  assert (len(a.examples), a.n_classes) == (10_000, 10)
  for i in (0, 17, 9999):
    image, label = a.examples[i]
    assert image.shape == (res, res, channels) and image.dtype == np.uint8
    assert label == i % 10
    np.testing.assert_array_equal(image, b.examples[i][0])
  distinct = {a.examples[i][0].tobytes() for i in range(200)}
  assert len(distinct) >= min(60, 10 * (res // 2 + 1))


def encoded(array, kind='PNG', **options):
  file = io.BytesIO()
  Image.fromarray(array).save(file, kind, **options)
  return file


TALL = np.arange(5 * 9 * 3, dtype=np.uint8).reshape(9, 5, 3)
PREPARE = """
import sys
import numpy as np
import tensorflow_datasets as tfds

class TinyPictures(tfds.core.GeneratorBasedBuilder):
  VERSION = tfds.core.Version('1.0.0')

  def _info(self):
    return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({
        'image': tfds.features.Image(), 'mask': tfds.features.Image(),
        'label': tfds.features.ClassLabel(names=['flat', 'tall', 'broken'])}))

  def _split_generators(self, manager):
    splits = {'train': 'abc', 'broken': 'x'}
    return {split: self._generate_examples(names) for split, names in splits.items()}

  def _generate_examples(self, names):
    for i, name in enumerate(names):
      file = f'{sys.argv[1]}/{name}.png'
      label = {'b': 'tall', 'x': 'broken'}.get(name, 'flat')
      yield i, {'image': file, 'mask': f'{sys.argv[1]}/x.png', 'label': label}

TinyPictures(data_dir=sys.argv[1]).download_and_prepare(file_format='array_record')
assert 'tensorflow' not in sys.modules
"""


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
  """A folder with tiny_pictures 1.0.0, prepared by a process of its own."""
  folder = tmp_path_factory.mktemp('tfds')
  pictures = {'a': np.full((4, 4, 3), 9, np.uint8), 'b': TALL, 'c': TALL[:5, :5]}
  for name, array in pictures.items():
    (folder / f'{name}.png').write_bytes(encoded(array).getvalue())
  (folder / 'x.png').write_bytes(encoded(TALL).getvalue()[:45])
  subprocess.run(
    [sys.executable, '-c', PREPARE, str(folder)], check=True, capture_output=True
  )
  return folder


def test_tfds_reads_back_exactly_without_tensorflow(tiny):
  pictures = data.load_dataset('tiny_pictures', data_dir=str(tiny), res=5, channels=3)
  assert pictures.class_names == ('flat', 'tall', 'broken')
  assert len(pictures.examples) == 3
  # TFDS shuffles what it stores: find each picture by what it must read as.
  read = {
    image.tobytes(): label
    for image, label in map(pictures.examples.__getitem__, range(3))
  }
  assert (
    read
    == {
      np.full((5, 5, 3), 9, np.uint8).tobytes(): 0,
      TALL[2:7].tobytes(): 1,  # the centre square
      TALL[:5].tobytes(): 0,
    }
  )
  part = data.load_dataset(
    'tiny_pictures:1.0.0', split='train[1:]', data_dir=str(tiny), res=4, channels=1
  )
  assert len(part.examples) == 2 and part.examples[0][0].shape == (4, 4, 1)
  assert 'tensorflow' not in sys.modules


def test_tfds_refusals(tiny, tmp_path):
  where = {'data_dir': str(tiny), 'res': 4, 'channels': 3}
  with pytest.raises(UserError, match="in split 'test'; its splits are train, broken"):
    data.load_dataset('tiny_pictures', split='test', **where)
  with pytest.raises(UserError, match=r"no images in split 'train\[:0\]'"):
    data.load_dataset('tiny_pictures', split='train[:0]', **where)
  broken = data.load_dataset('tiny_pictures', split='broken', **where)
  with pytest.raises(UserError, match="Image 0 of dataset 'tiny_pictures' cannot be"):
    next(
      data.iterate_batches(
        broken, shape=(1, 1), devices=(0,), n_devices=1, seed=0, start=0, flip=False
      )
    )
  with pytest.raises(UserError, match='nearest known names are cifar10') as unknown:
    data.load_dataset('ciphar10', **where)
  assert str(tiny) in str(unknown.value)
  with pytest.raises(UserError, match='nearest known names are emoji'):
    data.load_dataset('emojis', **where)
  with pytest.raises(UserError, match='download_and_prepare') as unprepared:
    data.load_dataset('cifar10', **where)
  assert f"tfds.builder('cifar10', data_dir='{tiny}')" in str(unprepared.value)

  info = json.loads((tiny / 'tiny_pictures/1.0.0/dataset_info.json').read_text())
  folder = tmp_path / 'tiny_pictures/1.0.0'
  folder.mkdir(parents=True)
  for file in (tiny / 'tiny_pictures/1.0.0').iterdir():
    (folder / file.name.replace('array_record', 'tfrecord')).write_bytes(
      file.read_bytes()
    )
  (folder / 'dataset_info.json').write_text(
    json.dumps(info | {'fileFormat': 'tfrecord'})
  )
  with pytest.raises(UserError, match='as tfrecord, but array_record is needed'):
    data.load_dataset('tiny_pictures', data_dir=str(tmp_path), res=4, channels=3)

  description = json.loads((folder / 'features.json').read_text())
  features = description['featuresDict']['features']
  features['photo'] = features.pop('image')
  (folder / 'features.json').write_text(json.dumps(description))
  with pytest.raises(UserError, match='label, mask, photo, but a uint8 image feature'):
    data.load_dataset('tiny_pictures', data_dir=str(tmp_path), res=4, channels=3)


def test_photos_are_cropped_and_shrunk():
  """JPEG with the drafted decoder against a plain mean over the centre square."""
  y, x = np.mgrid[:256, :512]
  photo = np.stack([y, 255 * (x >= 256), 255 - y], axis=-1).astype(np.uint8)
  jpeg = encoded(photo, 'JPEG', quality=95, subsampling=0).getvalue()
  source = [{'image': jpeg, 'label': 3}]
  image, label = dataset.EncodedImages('photos', source, 16, 3, labeled=True)[0]
  want = photo[:, 128:384].reshape(16, 16, 16, 16, 3).mean(axis=(1, 3))
  assert label == 3 and np.abs(image - want).max() < 4
  image, _ = dataset.EncodedImages('photos', source, 64, 3, labeled=True)[0]
  assert np.all(image[:, 32, 1] > image[:, 31, 1] + 200), 'the edge stays sharp'
  # A factor that is not whole, and a set without labels.
  image, label = dataset.EncodedImages('photos', source, 24, 1, labeled=False)[0]
  assert image.shape == (24, 24, 1) and label == 0
  assert abs(image.mean() - (photo[:, 128:384] @ [0.299, 0.587, 0.114]).mean()) < 1


@pytest.mark.parametrize('turned', [1, 6, 8])
@pytest.mark.parametrize('size', [(500, 375), (375, 501), (259, 386)])
def test_the_middle_of_a_drafted_photo_is_the_middle_of_the_whole(size, turned):
  x, y = np.meshgrid(*map(np.arange, size))
  waves = [np.sin(x / 9), np.sin(y / 11), np.sin((x + y) / 13)]
  photo = np.rint(127.5 + 120 * np.stack(waves, -1)).astype(np.uint8)
  exif = Image.Exif()
  exif[0x0112] = turned
  jpeg = encoded(photo, 'JPEG', quality=98, subsampling=0, exif=exif).getvalue()
  assert Image.open(io.BytesIO(jpeg)).draft('RGB', (64, 64)), 'made for the draft'
  image = decode.open_image(jpeg)
  want = decode.apply_orientation(decode.crop(decode.decode(image, 3), 32), image)
  found = dataset.decode_example(jpeg, 32, 3)
  # A quarter of an output pixel beside the middle would be 5 and more.
  assert np.abs(found - want.astype(int)).mean() < 1.5


@pytest.mark.parametrize('channels', [1, 3, 4])
def test_wrapped_pngs_are_pngs(channels, rng_seed):
  rng = np.random.default_rng(rng_seed)
  for side in (4, 150):  # 150 x 150 x 3 bytes are more than one block of zlib holds
    pixels = rng.integers(0, 256, (side, side, channels), np.uint8)
    content = raw_png.encode_png(pixels)
    picture = Image.open(io.BytesIO(content))
    picture.verify()
    picture = np.asarray(Image.open(io.BytesIO(content))).reshape(pixels.shape)
    np.testing.assert_array_equal(picture, pixels)
    np.testing.assert_array_equal(raw_png.decode_png(content, pixels.shape), pixels)
    assert len(content) < pixels.size + side + 100


def test_other_and_damaged_pngs_are_not_unwrapped(rng_seed):
  rng = np.random.default_rng(rng_seed)
  y, x = np.mgrid[:64, :64]
  ramps = np.stack([x, y, x + y], -1).astype(np.uint8)  # PIL filters its rows
  shape = ramps.shape
  for level in (0, 6):
    other = encoded(ramps, compress_level=level).getvalue()
    assert raw_png.decode_png(other, shape) is None
    np.testing.assert_array_equal(dataset.decode_example(other, 64, 3), ramps)
  content = raw_png.encode_png(ramps)
  for another in ((32, 64, 3), (64, 64, 1), (64, 64, 4)):
    assert raw_png.decode_png(content, another) is None
  assert raw_png.decode_png(b'', shape) is None
  place = int(rng.integers(100, len(content) - 100))
  flipped = bytes([content[place] ^ 1])
  for damaged in (
    content[:place] + flipped + content[place + 1 :],
    content[:place],
    content[:41] + zlib.compress(bytes(99), 0).ljust(len(content)),
  ):
    with pytest.raises(decode.UnreadableImage, match='cannot be decoded'):
      raw_png.decode_png(damaged, shape)


def test_refusals(monkeypatch):
  with pytest.raises(UserError, match='channels is 4, but dataset .emoji. has 3'):
    data.load_dataset('emoji', res=32, channels=4)
  with pytest.raises(UserError, match='res must be a positive number of pixels, not 0'):
    data.load_dataset('emoji', res=0, channels=3)
  with pytest.raises(UserError, match="'emoji' has only the split 'train', not 'test'"):
    data.load_dataset('emoji', split='test', res=32, channels=3)
  monkeypatch.setitem(sys.modules, 'sklearn.datasets', None)
  with pytest.raises(UserError, match='pip install scikit-learn'):
    data.load_dataset('digits', res=8, channels=1)

  emoji = data.Dataset('emoji', Numbered(2), tuple('abcdefghi'))
  data.check_labels(emoji, 9)
  data.check_labels(emoji, 0)
  with pytest.raises(
    UserError, match='n_classes=10, .* has 9 classes: set n_classes=9'
  ):
    data.check_labels(emoji, 10)
  data.check_labels(data.Dataset('faces', Numbered(2)), 0)
  with pytest.raises(
    UserError, match="n_classes=10, but dataset 'faces' has no labels"
  ):
    data.check_labels(data.Dataset('faces', Numbered(2)), 10)


@pytest.mark.parametrize('name', ['digits', 'synthetic'])
def test_shrunk_pixels_are_means_rounded_once(name):
  whole = data.load_dataset(name, res=16, channels=1)
  quarter = whole.shrunk(4)
  assert (quarter.name, quarter.n_classes) == (name, 10)
  for i in (0, 7):
    image, label = quarter.examples[i]
    want = whole.examples[i][0].astype(float).reshape(4, 4, 4, 4).mean((1, 3))
    np.testing.assert_array_equal(image[..., 0], np.rint(want))
    assert label == whole.examples[i][1]
  assert len(quarter.examples) == len(whole.examples)


def photo_folder(root, n=20, side=16, classes=('cat', 'dog')):
  """A folder with n PNGs by turns of each class; returns their pixels in its order."""
  rng = np.random.default_rng(1)
  for i in range(n):
    path = root / classes[i % len(classes)] / f'{i:03d}.png'
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = rng.integers(0, 256, (side, side, 3), np.uint8)
    path.write_bytes(encoded(pixels).getvalue())
  return np.stack([np.asarray(Image.open(p)) for p in sorted(root.rglob('*.png'))])


def test_folder_and_zip_are_read_as_they_are(tmp_path):
  pixels = photo_folder(tmp_path / 'pets')
  with zipfile.ZipFile(tmp_path / 'pets.zip', 'w') as archive:
    for path in (tmp_path / 'pets').rglob('*.png'):
      archive.write(path, path.relative_to(tmp_path / 'pets'))
  for name in ('pets', 'pets.zip'):
    pets = data.load_dataset(str(tmp_path / name), res=8, channels=3)
    assert (pets.class_names, pets.counts) == (('cat', 'dog'), (10, 10))
    images, labels = zip(*map(pets.examples.__getitem__, range(20)))
    mean = pixels.reshape(20, 8, 2, 8, 2, 3).mean((2, 4))
    assert np.abs(np.stack(images) - mean).max() <= 1, 'PIL rounds after each axis'
    assert list(labels) == [0] * 10 + [1] * 10
  with pytest.raises(UserError, match="only the split 'train', not 'test'"):
    data.load_dataset(str(tmp_path / 'pets'), split='test', res=8, channels=3)
  with pytest.raises(UserError, match='there is no such folder or zip'):
    data.load_dataset(str(tmp_path / 'pests'), res=8, channels=3)
  (tmp_path / 'empty').mkdir()
  with pytest.raises(UserError, match='empty has no pictures'):
    data.load_dataset(str(tmp_path / 'empty'), res=8, channels=3)


def test_enlarging_is_refused_unless_asked_for(tmp_path, tiny):
  pixels = photo_folder(tmp_path / 'pets', n=5)
  prepare.main([str(tmp_path / 'pets'), str(tmp_path / 'set')])
  for name in ('pets', 'set'):
    where = str(tmp_path / name)
    with pytest.raises(
      UserError, match=r'model.res is 32, .*\(half of them up to 16 pix'
    ):
      data.load_dataset(where, res=32, channels=3)
    large = data.load_dataset(where, res=32, channels=3, upscale=True)
    back = decode.area_downsample(np.stack([large.examples[i][0] for i in range(5)]), 2)
    assert np.abs(back.astype(int) - pixels).mean() < 20
  with pytest.raises(UserError, match='up to 5 pixels'):
    data.load_dataset('tiny_pictures', data_dir=str(tiny), res=8, channels=3)
  # Of a set of all sizes only most must be large enough; built-in ones always are.
  data.load_dataset('tiny_pictures', data_dir=str(tiny), res=5, channels=3)
  data.load_dataset('digits', res=16, channels=1)


def test_damaged_images_fail_by_name_or_are_skipped_and_counted(tmp_path, caplog):
  photo_folder(tmp_path / 'pets')
  for name in ('cat/004.png', 'cat/006.png', 'dog/019.png'):  # 2, 3 and 19 of the list
    path = tmp_path / 'pets' / name
    path.write_bytes(path.read_bytes()[:100])
  where = str(tmp_path / 'pets')
  strict = data.load_dataset(where, res=16, channels=3)
  with pytest.raises(
    data.CorruptImageError, match=r'cat/004.png of .*pets cannot be decoded \('
  ):
    strict.examples[2]
  lenient = data.load_dataset(where, res=16, channels=3, skip_bad=True)
  assert len(lenient.examples) == 20
  for place, taken in ((2, 4), (3, 4), (19, 0), (2, 4), (5, 5)):
    image, label = lenient.examples[place]
    np.testing.assert_array_equal(image, strict.examples[taken][0])
    assert label == strict.examples[taken][1]
  assert 'cat/004.png' in caplog.text and 'skipped: 3.' in caplog.text
  small = lenient.shrunk(4)
  np.testing.assert_array_equal(small.examples[3][0], strict.shrunk(4).examples[4][0])
  assert sorted(small.examples.skipped) == [2, 3, 19]
  for path in (tmp_path / 'pets').rglob('*.png'):
    path.write_bytes(b'')
  with pytest.raises(UserError, match='None of 20 images can be decoded'):
    data.load_dataset(where, res=16, channels=3, skip_bad=True).examples[0]


def test_labels_that_cannot_train_a_conditional_model():
  class Labeled(Numbered):
    def __getitem__(self, i):
      return super().__getitem__(i)[0], self.labels[i]

  def dataset(labels, names=('cat', 'dog')):
    examples = Labeled(len(labels))
    examples.labels = labels
    return data.Dataset('pets', examples, names)

  data.check_labels(dataset([0, 1, 1]), 2)
  with pytest.raises(UserError, match="are of one class, 'dog': set n_classes=0"):
    data.check_labels(dataset([1, 1, 1]), 2)
  with pytest.raises(UserError, match="are of one class, 'cat': set n_classes=0"):
    data.check_labels(dataset([0], ('cat',)), 1)
  data.check_labels(dataset([1, 1, 1]), 0)
  with pytest.raises(UserError, match="Image 2 of dataset 'pets' has the label 2, but"):
    data.check_labels(dataset([0, 1, 2]), 2)
  with pytest.raises(
    UserError, match='Image 0 .* has the label -1, but its labels are 0'
  ):
    data.check_labels(dataset([-1, 1]), 2)


def test_devices_that_are_not_there_are_refused():
  for devices in ((0, 0), (0, 3), (-1,)):
    with pytest.raises(UserError, match=r'devices .* of 0 to \d are needed'):
      global_order(1, hosts=(devices, (1,)))


HOST = """
import sys
import jax
from gan_jax import UserError, data
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
mine = sys.argv[3 + jax.process_index()]
answer = open(f'{mine}.txt', 'w')  # on the terminal gloo speaks, too
try:
  data.check_hosts(data.load(mine, res=16, channels=3))
  print('same', file=answer, flush=True)
except UserError as error:
  print(error, file=answer, flush=True)
jax.distributed.shutdown()
"""


@pytest.mark.parametrize(
  ('change', 'answer'),
  [
    (lambda path: None, r'same'),
    (lambda path: path.unlink(), r'Processes 0 and 1 .*\(20 and 19 images\): give'),
    (
      lambda path: path.write_bytes(
        encoded(np.zeros((16, 16, 3), np.uint8)).getvalue()
      ),
      r'Processes 0 and 1 read different data .*\(20 and 20 images\): give',
    ),
  ],
)
def test_hosts_with_different_copies_are_refused(tmp_path, free_port, change, answer):
  for copy in 'ab':
    photo_folder(tmp_path / copy)
  change(tmp_path / 'b/cat/000.png')
  hosts = [
    subprocess.Popen(
      [
        *(sys.executable, '-c', HOST, f'127.0.0.1:{free_port}', str(i)),
        *(str(tmp_path / 'a'), str(tmp_path / 'b')),
      ],
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
    )
    for i in range(2)
  ]
  said = [host.communicate(timeout=300) for host in hosts]
  for copy in 'ab':
    assert re.match(answer, (tmp_path / f'{copy}.txt').read_text()), said


def test_doctor(tmp_path):
  pixels = photo_folder(tmp_path / 'pets', n=21).astype(float)
  flat = np.full((16, 24, 3), 7, np.uint8)
  for name in ('a', 'b'):
    (tmp_path / 'pets' / 'dog' / f'{name}.png').write_bytes(encoded(flat).getvalue())
  pets = data.load_dataset(str(tmp_path / 'pets'), res=16, channels=3)
  said = data.summarize(pets, tmp_path / 'run')
  values = np.concatenate([pixels, np.full((2, 16, 16, 3), 7.0)])
  lines = said.splitlines()
  assert '23 images, read as 16 x 16 x 3 (folder, 0 files refused' in lines[0]
  assert lines[1] == 'labels: dog 12, cat 11'
  mean = ' '.join(f'{x:.1f}' for x in values.mean((0, 1, 2)))
  deviation = ' '.join(f'{x:.1f}' for x in values.std((0, 1, 2)))
  assert lines[2] == (
    f'pixels of 23 images: mean {mean}, deviation {deviation}, from '
    f'{int(values.min())} to {int(values.max())}'
  )
  assert lines[3:6] == [
    'note: 2 images are of a single colour',
    'note: 1 images are exact copies of others',
    'note: 2 of 23 images are not square: their middle is read',
  ]
  page = np.asarray(Image.open(tmp_path / 'run' / 'data.png'))
  # Five columns of pictures enlarged to 48, then a bar for each class.
  np.testing.assert_array_equal(page[2:50:3, 2:50:3], pixels[0])
  assert page.shape == (5 * 50 + 2 + 3 * 12, 400, 3)
  synthetic = data.load_dataset('synthetic', res=8, channels=1)
  assert 'labels: 0 1,000, 1 1,000' in data.summarize(synthetic, tmp_path / 'other')


STREAM = """
import hashlib, sys
from gan_jax import data
where, seed, start, hosts, shape, factor = sys.argv[1], *map(eval, sys.argv[2:7])
dataset = data.load(where, res=16, channels=3).shrunk(factor)
n_devices = sum(map(len, hosts))
streams = [
  data.batches(dataset, shape=shape, devices=devices, n_devices=n_devices, seed=seed,
               start=start, flip=True, threads=2)
  for devices in hosts
]
while True:
  # In the order of slots: micro-batch, device, image.
  devices = [pair for host in hosts for pair in enumerate(host)]
  read = [next(stream) for stream in streams]
  rows = {device: (read[h]['images'][row], read[h]['labels'][row])
          for h, host in enumerate(hosts) for row, device in enumerate(host)}
  for m in range(shape[0]):
    for device in range(n_devices):
      for image, label in zip(rows[device][0][m], rows[device][1][m]):
        print(start, label, hashlib.sha1(image.tobytes()).hexdigest(), flush=True)
        start += 1
"""


def test_killed_at_any_step_a_run_goes_on_with_the_same_batches(tmp_path, rng_seed):
  """On 1, 2 and 4 hosts, from a prepared set at a lower level, by real processes."""
  rng = np.random.default_rng(rng_seed)
  photo_folder(tmp_path / 'pets', n=50)
  where = tmp_path / 'set'
  prepare.main([str(tmp_path / 'pets'), str(where), '--shard_images=7'])
  seed = int(rng.integers(2**32))
  whole = data.load_dataset(str(where), res=4, channels=3)
  words = [
    np.random.Philox(key=np.array([seed, e], np.uint64)).random_raw(50)
    for e in range(9)
  ]
  order = np.concatenate([np.argsort(w) for w in words])
  flips = np.concatenate([w & 1 for w in words])

  def expected(position):
    image, label = whole.examples[int(order[position])]
    image = image[:, ::-1] if flips[position] else image
    return f'{position} {label} {hashlib.sha1(image.tobytes()).hexdigest()}'

  start = 0
  for hosts, shape in (
    (((0, 1, 2, 3),), (1, 3)),
    (((0, 1), (2, 3)), (2, 2)),
    (((3,), (0,), (2,), (1,)), (1, 4)),
  ):
    arguments = [where, seed, start, hosts, shape, 4]
    process = subprocess.Popen(
      [sys.executable, '-c', STREAM, *map(str, arguments)],
      stdout=subprocess.PIPE,
      text=True,
    )
    per_step = shape[0] * shape[1] * 4
    steps = int(rng.integers(1, 6))
    for position in range(start, start + steps * per_step):
      assert process.stdout.readline().strip() == expected(position)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    start += steps * per_step  # the images seen, which is all that a checkpoint has
