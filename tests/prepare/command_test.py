"""The prepare command: refused arguments, hostile zips, thousands of mixed files."""

import json
import stat
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gan_jax import UserError, data, prepare
from tests.data.images import (
  COLORS,
  PNG,
  encode,
  file_contents,
  random_image,
  read_examples,
  write_files,
)
from tests.prepare.bombs import pixel_bomb


def test_dry_run_writes_nothing(folder, tmp_path, capsys):
  before = file_contents(tmp_path)
  prepare.main([str(folder), str(tmp_path / 'pets'), '--dry-run'])
  out = capsys.readouterr().out
  assert '12 images, 1 other files' in out and 'levels 32, 16, 8, 4' in out
  assert file_contents(tmp_path) == before and not (tmp_path / 'pets').exists()


def test_bad_arguments_are_refused_before_anything_is_written(folder, tmp_path):
  before = file_contents(tmp_path)
  for arguments, message in (
    ([str(tmp_path / 'none/'), 'pets'], 'unknown|no such folder'),
    ([str(folder), str(tmp_path / 'My Pets')], "'My Pets', is not a valid name"),
    ([str(folder), str(folder)], 'exists and is not empty'),
    ([str(folder), str(tmp_path / 'pets'), '--res=24'], '--res=24: a power of two'),
    (
      [str(folder), str(tmp_path / 'pets'), '--res=24x'],
      '--res=24x: a number of pixels',
    ),
    (
      [str(folder), str(tmp_path / 'pets'), '--res=99x32'],
      '--res=99x32: both sides must be a first map of 1 to 32 rows and columns times '
      'one power of two, such as 192x128 or 256x144',
    ),
    (
      [str(folder), str(tmp_path / 'pets'), '--res=16x12'],
      'cat/0.png is 32 x 32, not of the shape of 16 x 12 .use --crop or --pad.',
    ),
    (
      [str(folder), str(tmp_path / 'pets'), '--res=64'],
      r'12 of 12 .* smaller than 64 \(use --ups',
    ),
    ([str(folder), str(tmp_path / 'pets'), '--background=no'], '--background=no: a'),
    ([str(folder), str(tmp_path / 'pets'), '--threads=0'], '--threads=0: it must be'),
  ):
    with pytest.raises(UserError, match=message):
      prepare.main(arguments)
  assert file_contents(tmp_path) == before
  (folder / 'cat/0.png').write_bytes(encode(np.zeros((40, 40, 3), np.uint8)))
  with pytest.raises(
    UserError, match='--res is needed: the shorter sides are 32 to 40'
  ):
    prepare.main([str(folder), str(tmp_path / 'pets')])


def test_12_bit_images_keep_their_brightness_relative_to_each_other(tmp_path, capsys):
  ramp = np.arange(64).reshape(8, 8)
  src = tmp_path / 'src'
  for i in range(4):
    write_files(src, {f'{i}.png': encode((ramp * 16 * i).astype(np.uint16))})
  prepare.main([str(src), str(tmp_path / 'deep'), '--channels=1', '--shard_images=2'])
  assert '16-bit values 0 to 4095 become 0 to 255 (--range)' in capsys.readouterr().out
  examples = data.load_dataset(str(tmp_path / 'deep'), res=8, channels=1).examples
  for i in range(4):
    want = np.rint(ramp * 16 * i * 255 / 4095)
    np.testing.assert_array_equal(examples[i][0][..., 0], want)
  manifest = json.loads((tmp_path / 'deep/manifest.json').read_text())
  assert manifest['options']['range'] == {'16-bit': [0, 4095]}
  for value_range, brightest in (('full', 4), ('image', 251), ('0,100', 255)):
    dest = tmp_path / f'deep{brightest}'
    prepare.main([str(src), str(dest), '--channels=1', f'--range={value_range}'])
    dataset = data.load_dataset(str(dest), res=8, channels=1)
    assert dataset.examples[1][0].max() == brightest
  with pytest.raises(UserError, match='^--range=9,3: .* LOW below HIGH'):
    prepare.main([str(src), str(tmp_path / 'other'), '--range=9,3'])


def test_panoramas_are_allowed_by_a_flag(tmp_path, monkeypatch):
  limit = 2000
  monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', limit)
  wide = random_image(np.random.default_rng(0), 40, 120)
  write_files(tmp_path / 'src', {'wide.png': encode(wide)})
  arguments = [str(tmp_path / 'src'), str(tmp_path / 'wide'), '--res=32', '--crop']
  with pytest.raises(
    UserError,
    match=r'wide.png declares .*more than 4,799 .*\(the flag --max_pixels '
    r'of gan_jax.prepare allows more\)',
  ):
    prepare.main([*arguments, '--max_pixels=4799'])
  prepare.main([*arguments, '--max_pixels=4800'])
  dataset = data.load_dataset(str(tmp_path / 'wide'), res=32, channels=3)
  assert len(dataset.examples) == 1
  assert limit == Image.MAX_IMAGE_PIXELS, 'the limit of the process is as before'
  with pytest.raises(UserError, match='--max_pixels=0: it must be at least 1'):
    prepare.main([*arguments, '--max_pixels=0'])


def test_the_home_folder_in_paths(folder, tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  prepare.main(['~/src', '~/sets/pets', '--data_dir=~/tfds'])
  assert (tmp_path / 'sets/pets/manifest.json').is_file()
  for arguments in (['~nobody_/src', str(tmp_path / 'a')],):
    with pytest.raises(UserError, match='~nobody_/src: there is no such user'):
      prepare.main(arguments)


def write_hostile_zip(path):
  """A zip with one good image, and one file for each attack and each defect."""
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
    names = '/abs.png', '../up.png', 'ok/../../up2.png', 'C:\\dos.png'
    for name in ('ok/1.png', *names):
      archive.writestr(name, PNG)
    link = zipfile.ZipInfo('ok/link.png')
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive.writestr(link, '/etc/passwd')
    archive.writestr('ok/zipbomb.png', bytes(10**6))
    archive.writestr('ok/pixelbomb.png', pixel_bomb())
    archive.writestr('ok/text.png', b'hello')
    archive.writestr('ok/truncated.jpg', encode(COLORS, 'JPEG')[:-40])
    archive.writestr('ok/new\nline.png', b'hello')
    archive.writestr(zipfile.ZipInfo('ok/crc.png'), PNG)
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      archive.writestr('ok/1.png', encode(255 - COLORS))
    archive.writestr('__MACOSX/ok/._1.png', b'left over')
  content = path.read_bytes()
  place = content.index(PNG[-50:], content.index(b'ok/crc.png'))
  path.write_bytes(content[:place] + bytes(20) + content[place + 20 :])


def test_hostile_zip(tmp_path, monkeypatch):
  monkeypatch.setattr('gan_jax.data.folder.MAX_BYTES', 100_000)
  path, dest = tmp_path / 'in' / 'hostile.zip', tmp_path / 'out' / 'set'
  path.parent.mkdir()
  write_hostile_zip(path)
  before = file_contents(tmp_path)
  with pytest.raises(UserError, match='cannot be used: /abs.png is an absolute path'):
    prepare.main([str(path), str(dest), '--res=8'])
  assert file_contents(tmp_path) == before
  prepare.main([str(path), str(dest), '--res=8', '--skip_bad'])
  refused = json.loads((dest / 'manifest.json').read_text())['refused']
  expected = {
    '/abs.png': 'is an absolute path',
    'C:\\dos.png': 'is an absolute path',
    '../up.png': 'leads out of the zip',
    'ok/../../up2.png': 'leads out of the zip',
    'ok/link.png': 'is a symbolic link',
    'ok/zipbomb.png': 'has 1,000,000 bytes, more than 100,000',
    'ok/pixelbomb.png': 'declares more than 67,108,864 pixels',
    'ok/text.png': 'is not an image',
    'ok/new\\nline.png': 'is not an image',
    'ok/truncated.jpg': 'cannot be decoded',
    'ok/crc.png': 'is corrupted in the zip',
    'ok/1.png': 'is in the zip twice; the first one is used',
  }
  assert refused.keys() == expected.keys()
  assert [n for n in expected if expected[n] not in refused[n]] == []
  images, _ = read_examples(data.load_dataset(str(dest), res=8, channels=3).examples)
  np.testing.assert_array_equal(images, COLORS[None])
  outside = [
    name
    for name in file_contents(tmp_path)
    if name not in before and not name.startswith('out/set/')
  ]
  assert outside == []


def good_files(rng):
  """Encoded images of at least 24 x 24 pixels of many formats and modes."""
  wide = [random_image(rng, 24, int(w)) for w in rng.integers(24, 40, 20)]
  tall = [np.swapaxes(x, 0, 1) for x in wide]
  return [
    *(encode(x) for x in [*wide, *tall]),
    *(encode(x, 'JPEG', quality=int(rng.integers(20, 96))) for x in wide),
    *(encode(x[..., 0]) for x in wide),
    *(encode(x[..., 0].astype(np.uint16) * 200) for x in wide),
    *(encode(random_image(rng, channels=4)) for _ in range(5)),
    *(encode(Image.fromarray(x).convert('CMYK'), 'JPEG') for x in wide),
    *(encode(Image.fromarray(x).convert('P')) for x in wide),
  ]


def bad_files(rng):
  """Contents of which no image of 16 x 16 pixels can be made."""
  image = random_image(rng, 24, 30)
  jpeg = encode(image, 'JPEG')
  return [
    b'',
    b'#!/bin/sh\necho hello\n',
    pixel_bomb(),
    jpeg[: len(jpeg) // 2],
    encode(image)[:200],
    jpeg[:10] + bytes(len(jpeg) - 10),
    encode(random_image(rng, 8, 8)),  # too small
    encode(np.full((24, 24), np.inf, np.float32), 'TIFF'),
  ]


@pytest.mark.slow
def test_ten_thousand_images_of_mixed_quality(tmp_path, rng_seed):
  rng = np.random.default_rng(rng_seed)
  good, bad = good_files(rng), bad_files(rng)
  n = 10_000
  corrupted = set(rng.choice(n, n // 100, replace=False).tolist())
  src, small, dest = (tmp_path / name for name in ('src', 'small', 'mixed'))
  names = [f'{"abc"[i % 3]}/{i:05d}.png' for i in range(n)]
  for folder in 'abc':
    (src / folder).mkdir(parents=True)
  for i, name in enumerate(names):
    pool = bad if i in corrupted else good
    (src / name).write_bytes(pool[rng.integers(len(pool))])
  write_files(small, {f'{i}.png': good[i % len(good)] for i in range(500)})

  program = Path(__file__).parent / 'programs' / 'measure_memory.py'
  process = subprocess.run(
    [sys.executable, program, small, tmp_path / 'small_set', src, dest],
    capture_output=True,
    text=True,
  )
  assert process.returncode == 0, process.stderr
  manifest = json.loads((dest / 'manifest.json').read_text())
  assert set(manifest['refused']) == {names[i] for i in corrupted}
  assert manifest['count'] == n - len(corrupted)
  kept = np.array([i % 3 for i in range(n) if i not in corrupted])
  assert manifest['histogram'] == np.bincount(kept).tolist()
  dataset = data.load_dataset(str(dest), res=4, channels=3)
  assert len(dataset.examples) == n - len(corrupted)
  by_folder = np.sort(kept)  # the order of the files' names
  for i in rng.integers(0, len(by_folder), 50).tolist():
    assert dataset.examples[i][1] == by_folder[i]
  # 20 times the images need little more memory: names are held, not images.
  few, many = [
    int(line.split()[1]) for line in process.stdout.splitlines() if 'peak_kb' in line
  ]
  assert many - few < 80_000, f'{few} kB for 500 images, {many} kB for 10,000'
