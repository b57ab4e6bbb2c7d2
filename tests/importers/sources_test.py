"""Formats are told apart, and nothing in a mutated file does harm."""

import dataclasses
import io
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest

from gan_jax import UserError
from gan_jax.importers.sources import read_published

PROGRAM = Path(__file__).parent / 'programs' / 'read_under_audit.py'
ATTACKS = (
  b'cos\nsystem\nX\x04\x00\x00\x00true\x85R',
  b'cposix\nsystem\n',
  b'(X\x04\x00\x00\x00trueios\nsystem\n',
  b'cbuiltins\nexec\nX\x01\x00\x00\x001\x85R',
  b'\x8e\xff\xff\xff\xff\xff\x00\x00\x00',
  b'r\xff\xff\xff\x7f',
  b'\x82\x01',
  b'h\x00h\x00\x86' * 40,
  b'N0' * 500_000,  # as many opcodes as the limit allows
  b'.',
)


def mutated(body, rng):
  """A random corruption of a file, or an attack inserted into it."""
  body, at = bytearray(body), int(rng.integers(1, len(body)))
  match rng.integers(5):
    case 0:  # anywhere
      for i in rng.integers(0, len(body), rng.integers(1, 9)):
        body[i] ^= 1 << int(rng.integers(8))
    case 1:  # where the opcodes are
      for i in rng.integers(0, min(len(body), 3000), rng.integers(1, 5)):
        body[i] = int(rng.integers(256))
    case 2:
      del body[at:]
    case 3:
      at = int(rng.integers(2, min(len(body), 3000)))
      body[at:at] = ATTACKS[rng.integers(len(ATTACKS))]
    case 4:
      size = int(rng.integers(1, 200))
      body[at:at] = body[at : at + size]
  return bytes(body)


def with_changed_pickle(path, change):
  """A zip file of torch.save with another pickle inside, and valid checksums."""
  out = io.BytesIO()
  with zipfile.ZipFile(path) as z, zipfile.ZipFile(out, 'w') as new:
    for name in z.namelist():
      body = z.read(name)
      new.writestr(name, change(body) if name.endswith('data.pkl') else body)
  return out.getvalue()


def test_a_thousand_mutated_files(tmp_path, rng_seed, checkpoints, pickles):
  """Each is read completely or rejected, without a command, a hang or much memory."""
  rng = np.random.default_rng(rng_seed)
  originals = [pickles / f'{kind}_tiny.pkl' for kind in ('progan', 'stylegan')]
  bodies = [path.read_bytes() for path in originals]
  zipped, legacy = (checkpoints / f'exp_{k}' / 'G_ema.pth' for k in ('zip', 'legacy'))
  (tmp_path / 'files').mkdir()
  for i in range(1000):
    if i % 4 < 2:
      path = tmp_path / 'files' / f'{i}.pkl'
      path.write_bytes(mutated(bodies[i % 4], rng))
      continue
    path = tmp_path / 'files' / f'{i}' / 'G_ema.pth'
    path.parent.mkdir()
    if i % 4 == 2:
      path.write_bytes(mutated(legacy.read_bytes(), rng))
    elif rng.integers(2):
      path.write_bytes(mutated(zipped.read_bytes(), rng))
    else:
      path.write_bytes(with_changed_pickle(zipped, lambda body: mutated(body, rng)))
  done = subprocess.run(
    [sys.executable, PROGRAM, tmp_path / 'files', *originals],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr[-2000:]
  read, rejected, events, peak_kilobytes = map(int, done.stdout.split())
  assert read + rejected == 1000 and rejected > 300
  assert events == 0
  assert peak_kilobytes < 2**20


def test_a_suffix_selects_other_files_of_the_folder(tmp_path, checkpoints, biggan):
  for name in ('G', 'D', 'G_ema'):
    path = checkpoints / 'exp_zip' / f'{name}.pth'
    shutil.copy(path, tmp_path / f'{name}_best0.pth')
  with pytest.raises(UserError, match='no G.pth.*--suffix=best0 reads D_best0.pth'):
    read_published(tmp_path)
  got = read_published(tmp_path, 'best0')
  assert got.gan == dataclasses.replace(biggan.gan, d_init=got.gan.d_init)
  jax.tree.map(np.testing.assert_array_equal, got.ema, biggan.ema)
