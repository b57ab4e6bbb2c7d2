"""Tests of gan_jax.prepare: exact pixels, every bad file named, whole or not there."""

import csv
import functools
import io
import json
import os
import signal
import stat
import struct
import subprocess
import sys
import time
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from gan_jax import UserError, data, prepare
from gan_jax.data import decode
from gan_jax.data.folder import open_source


def encoded(image, kind='PNG', **options):
  file = io.BytesIO()
  image = image if isinstance(image, Image.Image) else Image.fromarray(image)
  image.save(file, kind, **options)
  return file.getvalue()


def random_picture(rng, height=32, width=32, channels=3):
  return rng.integers(0, 256, (height, width, channels), np.uint8)


def bomb(width=100_000, height=100_000):
  """A PNG whose header is valid and claims much."""

  def chunk(kind, body):
    return (
      struct.pack('>I', len(body))
      + kind
      + body
      + struct.pack('>I', zlib.crc32(kind + body))
    )

  header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
  return (
    b'\x89PNG\r\n\x1a\n'
    + chunk(b'IHDR', header)
    + chunk(b'IDAT', zlib.compress(bytes(1000)))
    + chunk(b'IEND', b'')
  )


def write(folder, files):
  for name, content in files.items():
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


def read_all(dataset):
  images, labels = zip(*map(dataset.examples.__getitem__, range(len(dataset.examples))))
  return np.stack(images), np.array(labels)


def tree(folder):
  """Relative path -> content of every file below."""
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in sorted(folder.rglob('*'))
    if path.is_file()
  }


def options(res=8, channels=3, fit='', upscale=False, background=(255, 255, 255)):
  return prepare.Options(res, channels, fit, upscale, background, 0, 10)


RAMP = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
COLOURS = np.stack([RAMP, RAMP.T, 255 - RAMP], -1)
HALF = np.dstack([COLOURS, np.where(RAMP < 128, 0, 255).astype(np.uint8)])
ON_WHITE = np.where(RAMP[..., None] < 128, 255, COLOURS)
GREY = np.repeat(RAMP[..., None], 3, -1)


def with_palette():
  image = Image.fromarray((RAMP > 100).astype(np.uint8), 'P')
  image.putpalette([10, 20, 30, 200, 100, 50])
  return encoded(image, transparency=0)


def turned(orientation):
  """COLOURS as a camera stores it that was held so."""
  stored = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
  }[orientation]
  exif = Image.Exif()
  exif[0x0112] = orientation
  return encoded(Image.fromarray(COLOURS).transpose(stored), exif=exif)


@pytest.mark.filterwarnings('ignore:.*mode.*parameter:DeprecationWarning')
@pytest.mark.parametrize(
  ('content', 'want', 'within'),
  [
    (lambda: encoded(COLOURS), COLOURS, 0),
    (lambda: encoded(RAMP), GREY, 0),
    (lambda: encoded(RAMP > 100), np.where(GREY > 100, 255, 0), 0),
    (lambda: encoded(RAMP.astype(np.uint16) * 257), GREY, 0),
    (lambda: encoded(RAMP.astype(np.uint16) * 257 + 128), GREY, 0),
    (lambda: encoded(RAMP.astype(np.uint16) * 257, 'TIFF'), GREY, 0),
    (lambda: encoded(RAMP.astype(np.int32) * 257, 'TIFF'), GREY, 0),
    (lambda: encoded(HALF), ON_WHITE, 0),
    (
      lambda: encoded(Image.fromarray(HALF).convert('LA')),
      np.where(
        RAMP[..., None] < 128, 255, Image.fromarray(COLOURS).convert('L').convert('RGB')
      ),
      0,
    ),
    (
      with_palette,
      np.where(RAMP[..., None] > 100, np.array([[[200, 100, 50]]]), 255),
      0,
    ),
    *((functools.partial(turned, o), COLOURS, 0) for o in range(2, 9)),
    (lambda: encoded(COLOURS, 'WEBP', lossless=True), COLOURS, 0),
    (
      lambda: encoded(
        Image.fromarray(COLOURS).convert('CMYK'), 'JPEG', quality=100, subsampling=0
      ),
      COLOURS,
      4,
    ),
  ],
)
def test_all_kinds_of_pixels_become_8_bit_rgb(content, want, within):
  _, image = prepare.fitted(content(), options())
  assert image.dtype == np.uint8 and image.shape == (8, 8, 3)
  assert np.abs(image.astype(int) - want).max() <= within


def test_channels_and_background():
  _, grey = prepare.fitted(encoded(COLOURS), options(channels=1))
  want = COLOURS @ np.array([0.299, 0.587, 0.114])
  assert grey.shape == (8, 8, 1) and np.abs(grey[..., 0] - want).max() < 1
  _, rgba = prepare.fitted(encoded(HALF), options(channels=4))
  np.testing.assert_array_equal(rgba, HALF)
  _, on_blue = prepare.fitted(encoded(HALF), options(background=(0, 0, 255)))
  np.testing.assert_array_equal(
    on_blue, np.where(RAMP[..., None] < 128, np.array([[[0, 0, 255]]]), COLOURS)
  )


def test_crop_pad_and_upscale():
  wide = np.concatenate([COLOURS, COLOURS[::-1]], 1)  # 16 x 8
  content = encoded(wide)
  with pytest.raises(
    decode.UnreadableImage, match=r'is 16 x 8, not square \(--crop or'
  ):
    prepare.fitted(content, options())
  _, cropped = prepare.fitted(content, options(fit='crop'))
  np.testing.assert_array_equal(cropped, wide[:, 4:12])
  _, padded = prepare.fitted(content, options(res=16, fit='pad', background=(9, 8, 7)))
  want = np.full((16, 16, 3), np.array([[[9, 8, 7]]]), np.uint8)
  want[4:12] = wide
  np.testing.assert_array_equal(padded, want)
  with pytest.raises(decode.UnreadableImage, match=r'is 8 x 8, below 16 \(--upscale'):
    prepare.fitted(encoded(COLOURS), options(res=16))
  _, large = prepare.fitted(encoded(COLOURS), options(res=16, upscale=True))
  assert (
    np.abs(decode.area_downsample(large[None], 2)[0].astype(int) - COLOURS).mean() < 5
  )


@pytest.mark.parametrize(
  ('content', 'why'),
  [
    (lambda: b'', 'is no picture'),
    (lambda: b'not a picture at all', 'is no picture'),
    (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>', 'is no picture'),
    (lambda: b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n', 'is no picture'),
    (bomb, 'claims more than 67,108,864 pixels'),
    (lambda: bomb(9000, 9000), 'claims 9000 x 9000 pixels, above 67,108,864'),
    (lambda: encoded(COLOURS, 'JPEG')[:-40], 'cannot be decoded .*[Tt]runcated'),
    (lambda: encoded(COLOURS)[:60], 'cannot be decoded'),
    (lambda: encoded(COLOURS.astype(np.float32)[..., 0], 'TIFF'), 'floating-point'),
    (lambda: encoded(RAMP.astype(np.int32) * 999, 'TIFF'), 'has 32-bit pixels'),
  ],
)
def test_what_is_refused(content, why):
  with pytest.raises(decode.UnreadableImage, match=why):
    prepare.fitted(content(), options())


@pytest.fixture
def folder(tmp_path):
  """12 PNGs of 32 x 32 in two sub-folders, whose pixels are theirs alone."""
  rng = np.random.default_rng(0)
  root = tmp_path / 'src'
  names = [f'{kind}/{i}.png' for kind in ('cat', 'dog') for i in range(6)]
  write(root, {name: encoded(random_picture(rng)) for name in names})
  (root / 'notes.txt').write_text('not a picture')
  return root


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
    want = np.rint(
      full.astype(float).reshape(12, side, factor, side, factor, 3).mean((2, 4))
    )
    level = dataset.shrunk(factor)
    images, labels = read_all(level)
    np.testing.assert_array_equal(images, want)
    np.testing.assert_array_equal(labels, [0] * 6 + [1] * 6)
    # Stored, not computed: the source's own pictures have that size.
    assert level.examples.size(3) == (side, side)
    # And tensorflow-datasets reads the same.
    builder = tfds.core.read_only_builder.builder_from_files(
      f'pets/{side}', data_dir=tmp_path
    )
    records = builder.as_data_source(
      'train', decoders={'image': tfds.decode.SkipDecoding()}
    )
    theirs = [np.asarray(Image.open(io.BytesIO(r['image']))) for r in records]
    np.testing.assert_array_equal(np.stack(theirs), want)
    assert builder.info.features['label'].names == ['cat', 'dog']
  assert 'tensorflow' not in sys.modules

  # The same by name and data_dir, in parts, and at a level as the full size.
  part = data.load_dataset(
    'pets', split='train[50%:]', data_dir=str(tmp_path), res=8, channels=3
  )
  images, labels = read_all(part)
  want = np.rint(full.astype(float).reshape(12, 8, 4, 8, 4, 3).mean((2, 4)))
  np.testing.assert_array_equal(images, want[6:])
  assert part.counts == () and labels.tolist() == [1] * 6
  # Grey is made of the full size, where the mean of rounded greys is not.
  grey = data.load_dataset(str(dest), res=16, channels=1)
  assert grey.examples.size(0) == (32, 32) and grey.examples[0][0].shape == (16, 16, 1)

  manifest = json.loads((dest / 'manifest.json').read_text())
  assert (manifest['count'], manifest['histogram']) == (12, [6, 6])
  assert (manifest['other_files'], manifest['refused']) == (1, {})
  np.testing.assert_allclose(manifest['mean'], full.mean((0, 1, 2)), rtol=1e-12)
  np.testing.assert_allclose(manifest['deviation'], full.std((0, 1, 2)), rtol=1e-9)
  assert [len(level['files']) for level in manifest['levels'].values()] == [3] * 4
  with Image.open(dest / 'report.png') as page:
    assert page.size == (400, 3 * 50 + 2 + 3 * 12)
  assert not list(dest.rglob('*.part')) and not (dest / '.work').exists()


def zipped(path, files):
  with zipfile.ZipFile(path, 'w') as archive:
    for name, content in files.items():
      archive.writestr(name, content)
  return path


def test_folder_zip_and_tfds_give_the_same_files(folder, tmp_path):
  files = tree(folder)
  archive = zipped(tmp_path / 'a.zip', {f'pets/{n}': files[n] for n in reversed(files)})
  first = tmp_path / 'one' / 'pets'
  prepare.main([str(folder), str(first), '--threads=1', '--shard_images=5'])
  second = tmp_path / 'two' / 'pets'
  prepare.main([str(archive), str(second), '--threads=4', '--shard_images=5'])
  third = tmp_path / 'three' / 'pets'
  prepare.main(
    ['pets/32', str(third), f'--data_dir={first.parent}', '--shard_images=5']
  )
  want = tree(first)
  assert len(want) == 4 * 6 + 1
  for dest in (second, third):
    got = tree(dest)
    assert got.keys() == want.keys()
    assert [n for n in got if got[n] != want[n]] == ['manifest.json']


@pytest.mark.parametrize(
  ('table', 'content', 'names', 'labels'),
  [
    ('labels.csv', 'file,label\nb.png,dog\na.png,cat\nc/d.png,dog\n', 'cat dog', '011'),
    (
      'labels.csv',
      'label,file\r\n3,b.png\r\n0,a.png\r\n1,c/d.png\r\n',
      '0 1 2 3',
      '031',
    ),
    (
      'labels.jsonl',
      '{"file": "b.png", "label": 1}\n{"file": "a.png", "label": 0}\n'
      '{"file": "c/d.png", "label": 0}\n',
      '0 1',
      '010',
    ),
  ],
)
@pytest.mark.parametrize('wrap', ['', 'all/'])
def test_labels_from_a_table(tmp_path, table, content, names, labels, wrap):
  files = {name: encoded(COLOURS) for name in ('a.png', 'b.png', 'c/d.png')}
  files[table] = content.encode('utf-8-sig')
  write(tmp_path / 'src', {f'{wrap}{name}': x for name, x in files.items()})
  source = open_source(tmp_path / 'src')
  assert source.class_names == tuple(names.split())
  assert ''.join(map(str, source.labels)) == labels
  assert (source.n, source.others, dict(source.refused)) == (3, 0, {})


def test_labels_from_folders_are_in_the_order_of_numbers(tmp_path):
  write(tmp_path, {f'{i}/x/a.png': encoded(COLOURS) for i in (10, 9, 0)})
  source = open_source(tmp_path)
  assert source.class_names == ('0', '9', '10')
  assert [source.title(i) for i in range(3)] == ['0/x/a.png', '10/x/a.png', '9/x/a.png']
  assert source.labels.tolist() == [0, 2, 1]


PNG = encoded(COLOURS)


@pytest.mark.parametrize(
  ('files', 'message'),
  [
    ({'a.txt': b'x'}, 'has no pictures; .*.png, .* are looked for'),
    (
      {'a.png': PNG, 'cat/b.png': PNG},
      r'pictures beside its sub-folders \(a.png and 0',
    ),
    (
      {'a.png': PNG, 'labels.csv': b'file,label\na.png,-1\n'},
      'label of a.png is -1: 0',
    ),
    ({'a.png': PNG, 'labels.csv': b'file,label\na.png,100000\n'}, 'a.png is 100000: 0'),
    (
      {'a.png': PNG, 'labels.csv': b'name,class\na.png,1\n'},
      "has no 'file' and 'label'",
    ),
    ({'a.png': PNG, 'labels.csv': b'file,label\na.png,\n'}, 'has an empty label'),
    (
      {'a.png': PNG, 'labels.csv': b'file,label\na.png,1\na.png,2'},
      'a.png has two lab',
    ),
    ({'a.png': PNG, 'labels.jsonl': b'{"file"'}, 'labels.jsonl cannot be read'),
    ({'a.png': PNG, 'labels.csv': b'', 'labels.jsonl': b''}, 'has both labels.csv and'),
  ],
)
def test_unclear_sources_are_refused(tmp_path, files, message):
  write(tmp_path / 'src', files)
  with pytest.raises(UserError, match=message):
    open_source(tmp_path / 'src')


def test_files_without_labels_and_labels_without_files(tmp_path):
  table = b'file,label\na.png,cat\n../../etc/passwd.png,dog\n'
  write(tmp_path, {'a.png': PNG, 'b.png': PNG, 'labels.csv': table})
  source = open_source(tmp_path)
  assert (source.n, source.class_names) == (1, ('cat',))
  assert source.refused == {
    '../../etc/passwd.png': 'is listed in labels.csv, but not there',
    'b.png': 'has no label in labels.csv',
  }


def test_hostile_zip(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr('gan_jax.data.folder.MAX_BYTES', 100_000)
  path = tmp_path / 'in' / 'hostile.zip'
  path.parent.mkdir()
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
    for name in (
      'ok/1.png',
      '/abs.png',
      '../up.png',
      'ok/../../up2.png',
      'C:\\dos.png',
    ):
      archive.writestr(name, PNG)
    link = zipfile.ZipInfo('ok/link.png')
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive.writestr(link, '/etc/passwd')
    archive.writestr('ok/zipbomb.png', bytes(10**6))
    archive.writestr('ok/pixelbomb.png', bomb())
    archive.writestr('ok/text.png', b'hello')
    archive.writestr('ok/cut.jpg', encoded(COLOURS, 'JPEG')[:-40])
    archive.writestr('ok/new\nline.png', b'hello')
    archive.writestr(zipfile.ZipInfo('ok/crc.png'), PNG)
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      archive.writestr('ok/1.png', encoded(255 - COLOURS))
    archive.writestr('__MACOSX/ok/._1.png', b'left over')
  content = path.read_bytes()
  place = content.index(PNG[-50:], content.index(b'ok/crc.png'))
  path.write_bytes(content[:place] + bytes(20) + content[place + 20 :])

  before = tree(tmp_path)
  dest = tmp_path / 'out' / 'set'
  with pytest.raises(UserError, match='cannot be used: /abs.png is an absolute path'):
    prepare.main([str(path), str(dest), '--res=8'])
  assert tree(tmp_path) == before
  prepare.main([str(path), str(dest), '--res=8', '--skip_bad'])
  refused = json.loads((dest / 'manifest.json').read_text())['refused']
  expected = {
    '/abs.png': 'is an absolute path',
    'C:\\dos.png': 'is an absolute path',
    '../up.png': 'leads out of the zip',
    'ok/../../up2.png': 'leads out of the zip',
    'ok/link.png': 'is a symbolic link',
    'ok/zipbomb.png': 'has 1,000,000 bytes, above 100,000',
    'ok/pixelbomb.png': 'claims more than 67,108,864 pixels',
    'ok/text.png': 'is no picture',
    'ok/new\\nline.png': 'is no picture',
    'ok/cut.jpg': 'cannot be decoded',
    'ok/crc.png': 'is damaged in the zip',
    'ok/1.png': 'is in the zip twice; the first is taken',
  }
  assert refused.keys() == expected.keys()
  assert [n for n in expected if expected[n] not in refused[n]] == []
  images, _ = read_all(data.load_dataset(str(dest), res=8, channels=3))
  np.testing.assert_array_equal(images, COLOURS[None])
  outside = [
    n for n in tree(tmp_path) if n not in before and not n.startswith('out/set/')
  ]
  assert outside == []


def test_links_in_a_folder_are_not_followed(tmp_path):
  write(tmp_path, {'secret/a.png': PNG, 'src/cat/1.png': PNG})
  (tmp_path / 'src/cat/link.png').symlink_to(tmp_path / 'secret/a.png')
  (tmp_path / 'src/dogs').symlink_to(tmp_path / 'secret')
  os.mkfifo(tmp_path / 'src/cat/pipe.png')
  source = open_source(tmp_path / 'src')
  assert source.n == 1 and source.refused == {
    'cat/link.png': 'is a symbolic link',
    'cat/pipe.png': 'is no regular file',
    'dogs': 'is a symbolic link',
  }
  (tmp_path / 'src/cat/1.png').unlink()
  (tmp_path / 'src/cat/1.png').symlink_to(tmp_path / 'secret/a.png')
  with pytest.raises(decode.UnreadableImage, match='cannot be read'):
    source.read(0)


MEASURE = """
import resource, sys
from gan_jax import prepare
for src, dest in zip(sys.argv[1::2], sys.argv[2::2]):
  prepare.main([src, dest, '--res=16', '--crop', '--skip_bad', '--threads=2'])
  print('peak_kb', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_ten_thousand_pictures_of_mixed_quality(tmp_path, rng_seed):
  rng = np.random.default_rng(rng_seed)
  colour = [random_picture(rng, 24, int(w)) for w in rng.integers(24, 40, 20)]
  tall = [np.swapaxes(x, 0, 1) for x in colour]
  good = [
    *(encoded(x) for x in [*colour, *tall]),
    *(encoded(x, 'JPEG', quality=int(rng.integers(20, 96))) for x in colour),
    *(encoded(x[..., 0]) for x in colour),
    *(encoded(x[..., 0].astype(np.uint16) * 200) for x in colour),
    *(encoded(random_picture(rng, channels=4)) for _ in range(5)),
    *(encoded(Image.fromarray(x).convert('CMYK'), 'JPEG') for x in colour),
    *(encoded(Image.fromarray(x).convert('P')) for x in colour),
  ]
  jpeg = encoded(colour[0], 'JPEG')
  bad = [
    b'',
    b'#!/bin/sh\necho hello\n',
    bomb(),
    jpeg[: len(jpeg) // 2],
    encoded(colour[1])[:200],
    jpeg[:10] + bytes(len(jpeg) - 10),
    encoded(random_picture(rng, 8, 8)),  # too small
    encoded(np.ones((24, 24), np.float32), 'TIFF'),
  ]
  n = 10_000
  damaged = set(rng.choice(n, n // 100, replace=False).tolist())
  src, small = tmp_path / 'src', tmp_path / 'small'
  for name in 'abc':
    (src / name).mkdir(parents=True)
  names = [f'{"abc"[i % 3]}/{i:05d}.png' for i in range(n)]
  for i, name in enumerate(names):
    pool = bad if i in damaged else good
    (src / name).write_bytes(pool[rng.integers(len(pool))])
  write(small, {f'{i}.png': good[i % len(good)] for i in range(500)})

  dest = tmp_path / 'mixed'
  done = subprocess.run(
    [
      *(sys.executable, '-c', MEASURE),
      *(str(small), str(tmp_path / 'small_set'), str(src), str(dest)),
    ],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  manifest = json.loads((dest / 'manifest.json').read_text())
  assert set(manifest['refused']) == {names[i] for i in damaged}
  assert manifest['count'] == n - len(damaged)
  kept = np.array([i % 3 for i in range(n) if i not in damaged])
  assert manifest['histogram'] == np.bincount(kept).tolist()
  dataset = data.load_dataset(str(dest), res=4, channels=3)
  assert len(dataset.examples) == n - len(damaged)
  by_folder = np.sort(kept)  # the order of the files' names
  for i in rng.integers(0, len(by_folder), 50).tolist():
    assert dataset.examples[i][1] == by_folder[i]
  # 20 times the pictures in about the same memory: lists of names, not pictures.
  few, many = [
    int(line.split()[1]) for line in done.stdout.splitlines() if 'peak_kb' in line
  ]
  assert many - few < 80_000, f'{few} kB for 500 pictures, {many} kB for 10,000'


def start(src, dest, *more):
  return subprocess.Popen(
    [sys.executable, '-m', 'gan_jax.prepare', str(src), str(dest), *more],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )


def test_killed_resumes_to_the_same_bytes_and_is_never_half_readable(
  tmp_path, rng_seed
):
  rng = np.random.default_rng(rng_seed)
  src = tmp_path / 'src'
  some = [encoded(random_picture(rng, 64, 64)) for _ in range(40)]
  write(src, {f'{i % 2}/{i}.png': some[i % 40] for i in range(1500)})
  more = ('--shard_images=30', '--threads=2', '--png_level=6')
  whole = tmp_path / 'whole' / 'x'
  prepare.main([str(src), str(whole), *more])

  dest = tmp_path / 'killed' / 'x'
  partial = dest.with_name('x.partial')
  process = start(src, dest, *more)
  done: list[Path] = []
  while process.poll() is None and len(done) < 3:
    done = list((partial / '.work').glob('0*.json')) if partial.is_dir() else []
    time.sleep(0.005)
  time.sleep(rng.uniform(0, 0.3))
  process.send_signal(signal.SIGKILL)
  process.wait()
  assert not dest.exists(), 'killed too late to test anything'
  for path in (dest, partial):
    with pytest.raises(UserError, match='no such folder|has no pictures'):
      data.load_dataset(str(path), res=64, channels=3)
  with pytest.raises(ValueError, match='Could not find|not found'):
    tfds.core.read_only_builder.builder_from_files('x/64', data_dir=dest.parent)

  first = {p.name: p.stat().st_mtime_ns for p in (partial / '64/1.0.0').iterdir()}
  done = list((partial / '.work').glob('0*.json'))
  assert 3 <= len(done) < 50
  prepare.main([str(src), str(dest), *more])
  assert tree(dest) == tree(whole)
  after = {p.name: p.stat().st_mtime_ns for p in (dest / '64/1.0.0').iterdir()}
  kept = [name for name in first if first[name] == after[name]]
  assert len(kept) >= len(done), 'what was done is not done again'


def test_damage_found_late_keeps_what_is_done(folder, tmp_path, monkeypatch):
  cut = (folder / 'dog/3.png').read_bytes()[:300]
  (folder / 'dog/3.png').write_bytes(cut)
  dest = tmp_path / 'pets'
  with pytest.raises(
    UserError, match='1 of 12 pictures .*: dog/3.png cannot be decoded'
  ):
    prepare.main([str(folder), str(dest), '--shard_images=5'])
  assert not dest.exists()
  with pytest.raises(
    UserError, match=r'other pictures or options \(--shard_images: 5 ->'
  ):
    prepare.main([str(folder), str(dest), '--shard_images=6', '--skip_bad'])
  monkeypatch.setattr(prepare.writer, '_write_shard', None)  # nothing is left to write
  prepare.main([str(folder), str(dest), '--shard_images=5', '--skip_bad'])
  manifest = json.loads((dest / 'manifest.json').read_text())
  assert (manifest['count'], list(manifest['refused'])) == (11, ['dog/3.png'])
  assert len(data.load_dataset(str(dest), res=32, channels=3).examples) == 11


def test_a_changed_source_or_a_second_writer_is_refused(folder, tmp_path, monkeypatch):
  dest = tmp_path / 'pets'
  main = functools.partial(prepare.main, [str(folder), str(dest)])
  with monkeypatch.context() as patch:
    patch.setattr(prepare.writer, '_manifest', lambda *_: main())
    with pytest.raises(UserError, match='pets.partial is being written by another'):
      main()
  (folder / 'cat/7.png').write_bytes(PNG)
  with pytest.raises(UserError, match='was begun with other pictures'):
    prepare.main([str(folder), str(dest), '--res=32', '--upscale'])


def test_an_incomplete_copy_is_refused(folder, tmp_path):
  dest = tmp_path / 'pets'
  prepare.main([str(folder), str(dest)])
  (file,) = (dest / '16/1.0.0').glob('*array_record*')
  file.write_bytes(file.read_bytes()[:-1])
  dataset = data.load_dataset(str(dest), res=32, channels=3)
  with pytest.raises(UserError, match='the copy is not whole'):
    dataset.shrunk(2)
  file.unlink()
  with pytest.raises(UserError, match='the copy is not whole'):
    data.load_dataset(str(dest), res=16, channels=3)


def test_dry_run_and_refused_arguments(folder, tmp_path, capsys):
  before = tree(tmp_path)
  prepare.main([str(folder), str(tmp_path / 'pets'), '--dry-run'])
  out = capsys.readouterr().out
  assert '12 pictures, 1 other files' in out and 'levels 32, 16, 8, 4' in out
  assert tree(tmp_path) == before and not (tmp_path / 'pets').exists()
  for arguments, message in (
    ([str(tmp_path / 'none/'), 'pets'], 'unknown|no such folder'),
    ([str(folder), str(tmp_path / 'My Pets')], "'My Pets' is none: lower-case"),
    ([str(folder), str(folder)], 'is there and not empty'),
    ([str(folder), str(tmp_path / 'pets'), '--res=24'], '--res=24: a power of two'),
    (
      [str(folder), str(tmp_path / 'pets'), '--res=64'],
      r'12 of 12 .* below 64 \(--ups',
    ),
    ([str(folder), str(tmp_path / 'pets'), '--background=no'], '--background=no: a'),
    ([str(folder), str(tmp_path / 'pets'), '--threads=0'], '--threads=0: it must be'),
  ):
    with pytest.raises(UserError, match=message):
      prepare.main(arguments)
  assert tree(tmp_path) == before
  (folder / 'cat/0.png').write_bytes(encoded(np.zeros((40, 40, 3), np.uint8)))
  with pytest.raises(
    UserError, match='--res is needed: the shorter sides are 32 to 40'
  ):
    prepare.main([str(folder), str(tmp_path / 'pets')])


def test_csv_writer_and_reader_agree_on_awkward_names(tmp_path):
  names = ['a, b.png', 'ä "q".png', 'plain.png']
  write(tmp_path, dict.fromkeys(names, PNG))
  with (tmp_path / 'labels.csv').open('w', newline='') as file:
    csv.writer(file).writerows([('file', 'label'), *((n, n[0]) for n in names)])
  source = open_source(tmp_path)
  assert [source.class_names[i] for i in source.labels] == ['a', 'p', 'ä']
