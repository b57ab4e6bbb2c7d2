"""Files of other tools as sources: TFRecords, HDF5, idx, Parquet; corrupted ones."""

import gzip
import json
import struct
import sys

import numpy as np
import pytest

from gan_jax import UserError, data, prepare
from gan_jax.data import decode
from gan_jax.prepare.sources import open_source
from gan_jax.prepare.sources.recognition import file_kind
from tests.data.images import encode, read_examples, write_files

N = 6
LABELS = np.array([2, 0, 1, 1, 0, 2])


@pytest.fixture
def images(rng_seed):
  """Six different images, uint8 [6, 8, 8, 3]."""
  return np.random.default_rng(rng_seed).integers(0, 256, (N, 8, 8, 3), np.uint8)


def tf_example(**features) -> bytes:
  from tensorflow_datasets.proto import tf_example_pb2

  example = tf_example_pb2.Example()
  for name, value in features.items():
    if isinstance(value, bytes):
      example.features.feature[name].bytes_list.value.append(value)
    else:
      example.features.feature[name].int64_list.value.extend(value)
  return example.SerializeToString()


def write_tfrecord(path, records) -> None:
  framed = [struct.pack('<QI', len(r), 0) + r + bytes(4) for r in records]
  path.write_bytes(b''.join(framed))


def write_nvidia(folder, images, labels=None, name='faces') -> None:
  """The TFRecords of dataset_tool.py, one file for each resolution."""
  folder.mkdir()
  for level in (2, 3):
    small = decode.area_downsample(images, 2 ** (3 - level))
    chw = np.moveaxis(small, -1, 1)
    records = [tf_example(shape=x.shape, data=x.tobytes()) for x in chw]
    write_tfrecord(folder / f'{name}-r{level:02d}.tfrecords', records)
  if labels is not None:
    with (folder / f'{name}-rxx.labels').open('wb') as file:
      np.save(file, labels)


def write_hdf5(path, images, labels=LABELS, **options) -> None:
  h5py = pytest.importorskip('h5py')
  with h5py.File(path, 'w') as file:
    file.create_dataset('imgs', data=np.moveaxis(images, -1, 1), **options)
    file.create_dataset('labels', data=labels)


def idx(array) -> bytes:
  header = (
    b'\0\0\x08' + bytes([array.ndim]) + struct.pack(f'>{array.ndim}I', *array.shape)
  )
  return header + array.astype(np.uint8).tobytes()


def write_parquet(path, images, labels, features=None, **options) -> None:
  import pyarrow as pa
  import pyarrow.parquet as pq

  rows = [{'bytes': encode(x), 'path': f'{i}.png'} for i, x in enumerate(images)]
  columns = {'image': rows} if labels is None else {'image': rows, 'label': labels}
  table = pa.table(columns)
  if features:
    metadata = json.dumps({'info': {'features': features}})
    table = table.replace_schema_metadata({'huggingface': metadata})
  path.parent.mkdir(parents=True, exist_ok=True)
  pq.write_table(table, path, **options)


def read_source(path, split='train'):
  """(pixels, labels, class names) of a source, each image decoded."""
  source = open_source(str(path), split, None)
  pairs = [source.read(i) for i in range(source.n_images)]
  pixels = [np.asarray(decode.open_image(content)) for content, _ in pairs]
  labels = [label for _, label in pairs]
  assert labels == source.labels.tolist()
  return np.stack(pixels), labels, source.class_names


@pytest.mark.parametrize(
  'labels', [LABELS, np.eye(3, dtype=np.float32)[LABELS], LABELS.astype(np.float32)]
)
def test_the_highest_resolution_of_nvidia_tfrecords(tmp_path, images, labels):
  write_nvidia(tmp_path / 'tf', images, labels)
  pixels, read, names = read_source(tmp_path / 'tf')
  np.testing.assert_array_equal(pixels, images)
  assert read == LABELS.tolist() and names == ('0', '1', '2')
  low, _, _ = read_source(tmp_path / 'tf/faces-r02.tfrecords')
  np.testing.assert_array_equal(low, decode.area_downsample(images, 2))


def test_tfrecords_without_labels_become_a_set(tmp_path, images):
  write_nvidia(tmp_path / 'tf', images)
  prepare.main([str(tmp_path / 'tf'), str(tmp_path / 'faces'), '--shard_images=4'])
  dataset = data.load_dataset(str(tmp_path / 'faces'), res=8, channels=3)
  assert dataset.class_names == ()
  np.testing.assert_array_equal(read_examples(dataset.examples)[0], images)


@pytest.mark.parametrize(
  'options', [{}, {'chunks': (4, 3, 8, 8), 'compression': 'lzf'}]
)
def test_hdf5_of_biggan_pytorch(tmp_path, images, options):
  path = tmp_path / 'ILSVRC8.hdf5'
  write_hdf5(path, images, **options)
  pixels, labels, names = read_source(path)
  np.testing.assert_array_equal(pixels, images)
  assert labels == LABELS.tolist() and names == ('0', '1', '2')


@pytest.mark.parametrize('packed', [False, True])
def test_idx_files_of_mnist(tmp_path, images, packed):
  for split, part in (('train', images[..., 0]), ('t10k', images[:2, ..., 1])):
    for name, array in (('images-idx3', part), ('labels-idx1', LABELS[: len(part)])):
      content = gzip.compress(idx(array)) if packed else idx(array)
      suffix = '.gz' if packed else ''
      write_files(tmp_path, {f'raw/{split}-{name}-ubyte{suffix}': content})
  if packed:  # torchvision keeps both
    write_files(tmp_path, {'raw/train-images-idx3-ubyte': idx(images[..., 0])})
  pixels, labels, names = read_source(tmp_path)
  np.testing.assert_array_equal(pixels, images[..., 0])
  assert labels == LABELS.tolist() and names == ('0', '1', '2')
  pixels, labels, _ = read_source(tmp_path, 'test')
  np.testing.assert_array_equal(pixels, images[:2, ..., 1])
  assert labels == [2, 0]
  with pytest.raises(
    UserError, match=r"no idx files .* split 'extra' .*another --split"
  ):
    read_source(tmp_path, 'extra')


@pytest.mark.parametrize(
  ('labels', 'message'),
  [
    (b'', r'labels-idx1-ubyte cannot be .* \(its first bytes are missing\)'),
    (b'no idx', r'labels-idx1-ubyte cannot be .* \(its first bytes are 6e 6f 20 69\)'),
    (b'\1\0\x08\1' + idx(LABELS)[4:], r'\(its first bytes are 01 00 08 01\)'),
    (idx(LABELS)[:7], r'labels-idx1-ubyte cannot be read as an idx file'),
    (idx(LABELS)[:-1], 'declares 6 bytes, and it has 5'),
    (gzip.compress(idx(LABELS), mtime=0)[:-6], 'ended before the end-of-stream marker'),
  ],
)
def test_corrupted_labels_of_mnist(tmp_path, images, labels, message):
  write_files(
    tmp_path,
    {'train-images-idx3-ubyte': idx(images[..., 0]), 'train-labels-idx1-ubyte': labels},
  )
  with pytest.raises(UserError, match=message):
    open_source(str(tmp_path), 'train', None)


def test_parquet_files_of_hugging_face(tmp_path, images):
  names = ['ape', 'bee', 'cow', 'dog']
  features = {
    'image': {'_type': 'Image'},
    'label': {'_type': 'ClassLabel', 'names': names},
  }
  for shard, part in enumerate((slice(0, 4), slice(4, 6))):
    path = tmp_path / f'hub/data/train-{shard:05d}-of-00002.parquet'
    write_parquet(path, images[part], LABELS[part].tolist(), features, row_group_size=3)
  write_parquet(tmp_path / 'hub/data/test-00000-of-00001.parquet', images[:1], [3])
  pixels, labels, read_names = read_source(tmp_path / 'hub')
  np.testing.assert_array_equal(pixels, images)
  assert labels == LABELS.tolist() and read_names == tuple(names)
  assert read_source(tmp_path / 'hub', 'test')[1] == [3]
  with pytest.raises(UserError, match=r"split 'validation' \(splits: test, train\)"):
    read_source(tmp_path / 'hub', 'validation')
  write_parquet(tmp_path / 'plain.parquet', images, list('bacaab'))
  assert read_source(tmp_path / 'plain.parquet')[1:] == (
    [1, 0, 2, 0, 0, 1],
    tuple('abc'),
  )
  write_parquet(tmp_path / 'unlabeled.parquet', images, None)
  assert read_source(tmp_path / 'unlabeled.parquet')[1:] == ([0] * N, ())


def test_an_image_folder_with_a_parquet_table(tmp_path, images):
  import pyarrow as pa
  import pyarrow.parquet as pq

  write_files(tmp_path, {f'pets/x/{i}.png': encode(x) for i, x in enumerate(images)})
  (tmp_path / 'secret.png').write_bytes(encode(images[0]))
  names = [f'x/{i}.png' for i in range(N)] + ['../secret.png', 'gone.png']
  table = pa.table({'file_name': names, 'label': [*LABELS, 0, 0]})
  pq.write_table(table, tmp_path / 'pets/metadata.parquet')
  source = open_source(str(tmp_path / 'pets'), 'train', None)
  assert source.labels.tolist() == [*LABELS, 0, 0]
  for i in range(N):
    assert source.read(i) == (encode(images[i]), LABELS[i])
  for i, reason in ((N, 'leads out of the folder'), (N + 1, 'does not exist')):
    with pytest.raises(decode.UnusableImageError, match=reason):
      source.read(i)


def test_an_existing_file_needs_no_dot_before_its_name(tmp_path, images, monkeypatch):
  monkeypatch.chdir(tmp_path)
  write_files(
    tmp_path, {'photos/0.png': encode(images[0]), 'a-idx3': idx(images[..., 0])}
  )
  assert open_source('photos', 'train', None).n_images == 1
  assert open_source('photos/', 'train', None).n_images == 1
  assert open_source('a-idx3', 'train', None).n_images == N
  with pytest.raises(UserError, match=r'^photo.zip: there is no such folder or zip'):
    open_source('photo.zip', 'train', None)
  with pytest.raises(UserError, match=r'a-idx.h5: there is no such file or folder'):
    open_source('a-idx.h5', 'train', None)
  with pytest.raises(UserError, match=r'photos/a: there is no such file or folder'):
    open_source('photos/a', 'train', None)


@pytest.mark.parametrize(
  ('module', 'message'),
  [
    ('h5py', 'pip install h5py'),
    ('pyarrow', 'pip install pyarrow'),
    ('tensorflow_datasets.proto', 'pip install tensorflow-datasets'),
  ],
)
def test_a_missing_package_is_named(tmp_path, images, monkeypatch, module, message):
  write_hdf5(tmp_path / 'h5py.h5', images)
  write_parquet(tmp_path / 'pyarrow.parquet', images, None)
  write_nvidia(tmp_path / 'tensorflow_datasets', images)
  monkeypatch.setitem(sys.modules, module, None)
  path = next(tmp_path.glob(f'{module.split(".")[0]}*'))
  with pytest.raises(UserError, match=message):
    open_source(str(path), 'train', None)


def test_labels_that_are_no_classes_are_refused(tmp_path, images):
  for n, (labels, message) in enumerate(
    (
      (np.ones((N, 3), np.float32), 'not one-hot'),
      (LABELS[:4], 'one class each'),
      (LABELS + 0.5, 'one class each'),
      (LABELS - 1, 'has labels from -1 to 1'),
    )
  ):
    write_nvidia(tmp_path / f'{n}', images, labels)
    with pytest.raises(UserError, match=message):
      open_source(str(tmp_path / f'{n}'), 'train', None)
  write_files(
    tmp_path, {'images.idx': idx(images[..., 0]), 'labels.idx': idx(LABELS[:3])}
  )
  with pytest.raises(UserError, match='6 images, but labels of the shape'):
    open_source(str(tmp_path / 'images.idx'), 'train', None)
  write_hdf5(tmp_path / 'a.h5', images, LABELS[:2])
  with pytest.raises(UserError, match='6 images, but labels of the shape'):
    open_source(str(tmp_path / 'a.h5'), 'train', None)
  write_parquet(tmp_path / 'a.parquet', images, [0, 1, None, 0, 0, 0])
  with pytest.raises(UserError, match='types NoneType, int'):
    open_source(str(tmp_path / 'a.parquet'), 'train', None)


def test_records_of_other_tools_are_described(tmp_path, images):
  h5py = pytest.importorskip('h5py')
  write_tfrecord(tmp_path / 'a.tfrecords', [tf_example(**{'image/encoded': b'x'})])
  with pytest.raises(UserError, match=r'have the features image/encoded, but .shape.'):
    open_source(str(tmp_path / 'a.tfrecords'), 'train', None)
  with h5py.File(tmp_path / 'a.h5', 'w') as file:
    file['pixels'] = images
  with pytest.raises(
    UserError, match=r"no dataset 'imgs' of its own \(it has pixels\)"
  ):
    open_source(str(tmp_path / 'a.h5'), 'train', None)
  with h5py.File(tmp_path / 'link.h5', 'w') as file:
    file['imgs'] = h5py.ExternalLink('a.h5', '/pixels')
  with pytest.raises(UserError, match="no dataset 'imgs' of its own"):
    open_source(str(tmp_path / 'link.h5'), 'train', None)
  with h5py.File(tmp_path / 'empty.h5', 'w') as file:
    file.create_dataset('imgs', (10**7, 3, 64, 64), np.uint8, chunks=(9, 3, 64, 64))
  with pytest.raises(UserError, match="is incomplete: 'imgs' declares"):
    open_source(str(tmp_path / 'empty.h5'), 'train', None)


def corrupted(content, rng):
  """The content, cut at a random place or with random bytes overwritten."""
  cut = int(rng.integers(1, len(content)))
  if rng.random() < 0.5:
    return content[:cut]
  start = int(rng.integers(0, min(len(content), 200)))
  noise = rng.integers(0, 256, 12, np.uint8).tobytes()
  return content[:start] + noise + content[start + 12 :]


def test_damaged_files_are_refused_in_one_sentence(tmp_path, images, rng_seed):
  """No damage may end in anything but a UserError or an image that is left out."""
  rng = np.random.default_rng(rng_seed)
  write_nvidia(tmp_path / 'tf', images, LABELS)
  write_hdf5(tmp_path / 'a.h5', images, chunks=(2, 3, 8, 8), compression='gzip')
  write_parquet(tmp_path / 'a.parquet', images, LABELS.tolist())
  contents = {
    'faces-r03.tfrecords': (tmp_path / 'tf/faces-r03.tfrecords').read_bytes(),
    'a.h5': (tmp_path / 'a.h5').read_bytes(),
    'a.parquet': (tmp_path / 'a.parquet').read_bytes(),
    'a-idx3': idx(images[..., 0]),
    'a-idx3.gz': gzip.compress(idx(images[..., 0])),
  }
  for name, content in contents.items():
    for attempt in range(20):
      path = tmp_path / f'{attempt}' / name
      write_files(tmp_path, {f'{attempt}/{name}': corrupted(content, rng)})
      try:
        source = open_source(str(path), 'train', None)
        for i in range(source.n_images):
          source.read(i)
      except UserError as error:
        assert '\n' not in str(error).strip() or 'Parquet' in str(error)
      except decode.UnusableImageError:
        pass


def test_idx_files_that_declare_too_much(tmp_path):
  huge = b'\0\0\x08\3' + struct.pack('>3I', 2**31, 2**31, 2**31) + bytes(100)
  for content in (huge, gzip.compress(huge)):
    (tmp_path / 'a').write_bytes(content)
    assert file_kind(tmp_path / 'a') == 'idx'
    with pytest.raises(UserError, match='cannot be read as an idx file .it declares'):
      open_source(str(tmp_path / 'a'), 'train', None)


def test_truncated_files_say_so(tmp_path, images):
  write_nvidia(tmp_path / 'tf', images)
  path = tmp_path / 'tf/faces-r03.tfrecords'
  path.write_bytes(path.read_bytes()[:-5])
  with pytest.raises(UserError, match='is corrupted: it ends within record 5; copy it'):
    open_source(str(tmp_path / 'tf'), 'train', None)
  (tmp_path / 'a').write_bytes(idx(images[..., 0])[:-5])
  with pytest.raises(UserError, match='header declares 384 bytes, and it has 379'):
    open_source(str(tmp_path / 'a'), 'train', None)
  write_parquet(tmp_path / 'a.parquet', images, None)
  content = (tmp_path / 'a.parquet').read_bytes()
  (tmp_path / 'a.parquet').write_bytes(content[:-5])
  with pytest.raises(UserError, match='a Parquet file cannot be read'):
    open_source(str(tmp_path / 'a.parquet'), 'train', None)
