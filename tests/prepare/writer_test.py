"""Prepared sets: exact pixels at every level; written completely, or resumed."""

import fcntl
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from gan_jax import UserError, data, prepare
from tests.data.images import (
  PNG,
  encode,
  file_contents,
  random_image,
  read_examples,
  write_files,
  write_zip,
)


def mean_of_blocks(images, factor):
  """The mean of each block of factor x factor pixels, rounded once."""
  n, h, w, c = images.shape
  blocks = images.astype(float).reshape(n, h // factor, factor, w // factor, factor, c)
  return np.rint(blocks.mean((2, 4)))


def modification_times(folder):
  return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_levels_of_images_that_are_not_square(folder, tmp_path):
  dest = tmp_path / 'wide'
  prepare.main([str(folder), str(dest), '--res=32x24', '--crop'])
  assert sorted(x.name for x in dest.iterdir() if x.is_dir()) == [
    *('16x12', '32x24', '4x3', '8x6')
  ]
  photos = [np.asarray(Image.open(path)) for path in sorted(folder.rglob('*.png'))]
  full = np.stack(photos)[:, 4:28]
  dataset = data.load_dataset(str(dest), res=(24, 32), channels=3)
  assert 'read at 32 x 24' in dataset.origin and dataset.content == (0, 0, 1, 1)
  for factor in (1, 2, 8):
    level = dataset.downsampled(factor)
    images, _ = read_examples(level.examples)
    np.testing.assert_array_equal(images, mean_of_blocks(full, factor))
    assert level.examples.source_size(3) == (32 // factor, 24 // factor)
  for size, shown in ((32, '32 x 32'), ((32, 24), '24 x 32')):
    with pytest.raises(
      UserError,
      match=(
        f'images of 32 x 24, and the model has {shown} .width x height.: set '
        'model.first_map to their shape, or prepare the images again with --res='
      ),
    ):
      data.load_dataset(str(dest), res=size, channels=3)


def test_every_level_is_the_mean_of_the_full_image(folder, tmp_path, capsys):
  dest = tmp_path / 'pets'
  prepare.main([str(folder), str(dest), '--shard_images=5', '--report'])
  assert 'cat 6, dog 6' in capsys.readouterr().out
  full = np.stack(
    [np.asarray(Image.open(path)) for path in sorted(folder.rglob('*.png'))]
  )
  dataset = data.load_dataset(str(dest), res=32, channels=3)
  assert (dataset.class_names, dataset.counts) == (('cat', 'dog'), (6, 6))
  for factor in (1, 2, 4, 8):
    side = 32 // factor
    level = dataset.downsampled(factor)
    images, labels = read_examples(level.examples)
    np.testing.assert_array_equal(images, mean_of_blocks(full, factor))
    np.testing.assert_array_equal(labels, [0] * 6 + [1] * 6)
    # Stored, not computed: the stored images have that size.
    assert level.examples.source_size(3) == (side, side)
    # And tensorflow-datasets reads the same.
    builder = tfds.core.read_only_builder.builder_from_files(
      f'pets/{side}', data_dir=tmp_path
    )
    records = builder.as_data_source(
      'train', decoders={'image': tfds.decode.SkipDecoding()}
    )
    stored = [np.asarray(Image.open(io.BytesIO(r['image']))) for r in records]
    np.testing.assert_array_equal(np.stack(stored), mean_of_blocks(full, factor))
    assert builder.info.features['label'].names == ['cat', 'dog']
  assert 'tensorflow' not in sys.modules

  # By name and data_dir, a part of the set, and a level as the full resolution.
  part = data.load_dataset(
    'pets', split='train[50%:]', data_dir=str(tmp_path), res=8, channels=3
  )
  images, labels = read_examples(part.examples)
  np.testing.assert_array_equal(images, mean_of_blocks(full, 4)[6:])
  assert part.counts == () and labels.tolist() == [1] * 6
  # Grey is computed from the full resolution: the mean of rounded greys differs.
  grey = data.load_dataset(str(dest), res=16, channels=1)
  assert grey.examples.source_size(0) == (32, 32)
  assert grey.examples[0][0].shape == (16, 16, 1)

  manifest = json.loads((dest / 'manifest.json').read_text())
  assert (manifest['count'], manifest['histogram']) == (12, [6, 6])
  assert (manifest['other_files'], manifest['refused']) == (1, {})
  np.testing.assert_allclose(manifest['mean'], full.mean((0, 1, 2)), rtol=1e-12)
  np.testing.assert_allclose(manifest['deviation'], full.std((0, 1, 2)), rtol=1e-9)
  assert [len(level['files']) for level in manifest['levels'].values()] == [3] * 4
  with Image.open(dest / 'report.png') as page:
    assert page.size == (400, 3 * 50 + 2 + 3 * 12)
  assert not list(dest.rglob('*.part')) and not (dest / '.work').exists()


def test_the_set_knows_what_is_padding_in_no_image(tmp_path):
  shapes = {'a': (16, 8), 'b': (16, 12), 'c': (16, 4)}  # height, width
  source = tmp_path / 'source'
  source.mkdir()
  for name, shape in shapes.items():
    (source / f'{name}.png').write_bytes(encode(np.zeros((*shape, 3), np.uint8)))
  flags = ['--pad', '--shard_images=1']
  prepare.main([str(source), str(tmp_path / 'set'), '--res=16', *flags])
  manifest = json.loads((tmp_path / 'set' / 'manifest.json').read_text())
  assert manifest['content'] == [0, 2, 16, 14]  # that of b
  for res in (16, 8, 4):
    dataset = data.load_dataset(str(tmp_path / 'set'), res=res, channels=3)
    assert dataset.content == (0, 1 / 8, 1, 7 / 8)
  assert data.make_record(dataset)['content'] == [0, 1 / 8, 1, 7 / 8]
  # Sets without padding, and those of earlier versions.
  for change in ({'content': [0, 0, 16, 16]}, {'content': None}):
    now = {k: v for k, v in {**manifest, **change}.items() if v is not None}
    (tmp_path / 'set' / 'manifest.json').write_text(json.dumps(now))
    dataset = data.load_dataset(str(tmp_path / 'set'), res=16, channels=3)
    assert dataset.content == (0, 0, 1, 1)
    assert 'content' not in data.make_record(dataset)


def test_folder_zip_and_tfds_give_the_same_files(folder, tmp_path):
  files = file_contents(folder)
  archive = write_zip(
    tmp_path / 'a.zip', {f'pets/{n}': files[n] for n in reversed(files)}
  )
  first, second, third = (tmp_path / n / 'pets' for n in ('one', 'two', 'three'))
  prepare.main([str(folder), str(first), '--threads=1', '--shard_images=5'])
  prepare.main([str(archive), str(second), '--threads=4', '--shard_images=5'])
  prepare.main(
    ['pets/32', str(third), f'--data_dir={first.parent}', '--shard_images=5']
  )
  want = file_contents(first)
  assert len(want) == 4 * 6 + 1
  for dest in (second, third):
    got = file_contents(dest)
    assert got.keys() == want.keys()
    assert [n for n in got if got[n] != want[n]] == ['manifest.json']


@pytest.mark.slow
def test_killed_resumes_to_the_same_bytes_and_is_never_half_readable(
  tmp_path, rng_seed
):
  rng = np.random.default_rng(rng_seed)
  src = tmp_path / 'src'
  some = [encode(random_image(rng, 64, 64)) for _ in range(40)]
  write_files(src, {f'{i % 2}/{i}.png': some[i % 40] for i in range(1500)})
  more = ('--shard_images=30', '--threads=2', '--png_level=6')
  uninterrupted = tmp_path / 'uninterrupted' / 'x'
  prepare.main([str(src), str(uninterrupted), *more])

  dest = tmp_path / 'killed' / 'x'
  partial = dest.with_name('x.partial')
  process = subprocess.Popen(
    [sys.executable, '-m', 'gan_jax.prepare', str(src), str(dest), *more],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  finished: list[Path] = []
  while process.poll() is None and len(finished) < 3:
    finished = list((partial / '.work').glob('0*.json')) if partial.is_dir() else []
    time.sleep(0.005)
  time.sleep(rng.uniform(0, 0.3))
  process.send_signal(signal.SIGKILL)
  process.wait()
  assert not dest.exists(), 'killed too late to test anything'
  for path in (dest, partial):
    with pytest.raises(UserError, match='no such folder|has no images'):
      data.load_dataset(str(path), res=64, channels=3)
  with pytest.raises(ValueError, match='Could not find|not found'):
    tfds.core.read_only_builder.builder_from_files('x/64', data_dir=dest.parent)

  before = modification_times(partial / '64/1.0.0')
  finished = list((partial / '.work').glob('0*.json'))
  assert 3 <= len(finished) < 50
  prepare.main([str(src), str(dest), *more])
  assert file_contents(dest) == file_contents(uninterrupted)
  after = modification_times(dest / '64/1.0.0')
  kept = [name for name in before if before[name] == after[name]]
  assert len(kept) >= len(finished), 'finished files are not written again'


def test_corruption_found_late_keeps_the_finished_files(folder, tmp_path):
  truncated = (folder / 'dog/3.png').read_bytes()[:300]
  (folder / 'dog/3.png').write_bytes(truncated)
  dest = tmp_path / 'pets'
  with pytest.raises(
    UserError, match='1 of 12 images .*: dog/3.png cannot be decoded .*are kept in'
  ):
    prepare.main([str(folder), str(dest), '--shard_images=5'])
  assert not dest.exists()
  before = modification_times(tmp_path / 'pets.partial/32/1.0.0')
  assert len(before) == 3
  with pytest.raises(
    UserError, match=r'other images or options \(--shard_images: 5 ->'
  ):
    prepare.main([str(folder), str(dest), '--shard_images=6', '--skip_bad'])
  prepare.main([str(folder), str(dest), '--shard_images=5', '--skip_bad'])
  after = modification_times(dest / '32/1.0.0')
  assert before.items() <= after.items(), 'finished files are not written again'
  manifest = json.loads((dest / 'manifest.json').read_text())
  assert (manifest['count'], list(manifest['refused'])) == (11, ['dog/3.png'])
  assert len(data.load_dataset(str(dest), res=32, channels=3).examples) == 11


def test_a_changed_source_or_a_second_writer_is_refused(folder, tmp_path):
  dest, partial = tmp_path / 'pets', tmp_path / 'pets.partial'
  (folder / 'dog/3.png').write_bytes((folder / 'dog/3.png').read_bytes()[:300])
  with pytest.raises(UserError, match='dog/3.png cannot be decoded'):
    prepare.main([str(folder), str(dest)])
  lock = os.open(partial, os.O_RDONLY)  # as another process would hold it
  fcntl.flock(lock, fcntl.LOCK_EX)
  with pytest.raises(UserError, match='pets.partial is being written by another'):
    prepare.main([str(folder), str(dest), '--skip_bad'])
  os.close(lock)
  (folder / 'cat/7.png').write_bytes(PNG)
  with pytest.raises(UserError, match='was started with other images'):
    prepare.main([str(folder), str(dest), '--res=32', '--upscale', '--skip_bad'])


def test_an_incomplete_copy_is_refused(folder, tmp_path):
  dest = tmp_path / 'pets'
  prepare.main([str(folder), str(dest)])
  (file,) = (dest / '16/1.0.0').glob('*array_record*')
  file.write_bytes(file.read_bytes()[:-1])
  dataset = data.load_dataset(str(dest), res=32, channels=3)
  with pytest.raises(UserError, match='has .* bytes, but .*the copy is incomplete'):
    dataset.downsampled(2)
  file.unlink()
  with pytest.raises(UserError, match='is missing, but .*the copy is incomplete'):
    data.load_dataset(str(dest), res=16, channels=3)
