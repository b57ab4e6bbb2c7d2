"""Published weights: files that lie, and what is made of those that do not."""

import io
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from gan_jax import UserError
from gan_jax.importers import files

GOLDEN = Path(__file__).parent / 'golden'
CHECKPOINTS = GOLDEN / 'biggan_metrics' / 'checkpoints'
PICKLES = GOLDEN / 'progan_stylegan'


def test_the_kinds_of_files_hold_the_same(tmp_path, rng_seed):
  rng = np.random.default_rng(rng_seed)
  want = {
    'a.weight': rng.standard_normal((3, 4)).astype(np.float32),
    'a.fortran': np.asfortranarray(rng.standard_normal((2, 5))),
    'b': rng.integers(0, 9, (2, 1, 2)),
    'scalar': np.float32(rng.standard_normal()),
  }
  np.savez(tmp_path / 'stored.npz', **want)
  np.savez_compressed(tmp_path / 'small.npz', **want)
  for protocol in range(2, 6):
    (tmp_path / f'{protocol}.pkl').write_bytes(pickle.dumps(want, protocol))
  for path in sorted(tmp_path.iterdir()):
    got = files.read_arrays(path)
    assert got.keys() == want.keys(), path
    for name, value in want.items():
      np.testing.assert_array_equal(got[name], value, err_msg=f'{path} {name}')


def test_both_containers_of_torch_hold_the_same():
  zipped = files.read_arrays(CHECKPOINTS / 'exp_zip' / 'G_ema.pth')
  legacy = files.read_arrays(CHECKPOINTS / 'exp_legacy' / 'G_ema.pth')
  assert len(zipped) == 110 and zipped.keys() == legacy.keys()
  for name, value in zipped.items():
    np.testing.assert_array_equal(value, legacy[name])
  with np.load(CHECKPOINTS / 'expected_biggan.npz') as z:
    for side in ('G', 'D', 'G_ema'):
      stored = [name for name in z.files if name.startswith(f'{side}/')]
      assert stored
      got = files.read_arrays(CHECKPOINTS / 'exp_zip' / f'{side}.pth')
      for name in stored:
        np.testing.assert_array_equal(got[name.partition('/')[2]], z[name])
    state = files.read_tree(CHECKPOINTS / 'exp_zip' / 'G_optim.pth')['state']
    for name in (n for n in z.files if n.startswith('G_optim/')):
      _, index, _, kind = name.split('/')
      np.testing.assert_array_equal(state[int(index)][kind], z[name])


def test_settings_are_read_with_their_activations(tmp_path):
  """BigGAN-PyTorch saves torch.nn.ReLU objects among its settings."""
  relu = b'ctorch.nn.modules.activation\nReLU\n)\x81}X\x07\x00\x00\x00inplace\x88sb'
  body = b'\x80\x02}(X\x06\x00\x00\x00configM\x00\x04X\x01\x00\x00\x00a' + relu + b'u.'
  path = tmp_path / 'state_dict.pth'
  with zipfile.ZipFile(path, 'w') as z:
    z.writestr('state_dict/data.pkl', body)
  tree = files.read_tree(path)
  assert tree['config'] == 1024
  assert tree['a'].state == {'inplace': True}


def hostile(body):
  return b'\x80\x02' + body + b'.'


HOSTILE = {
  'a command': (pickle.dumps(np.add), 'add'),
  'system': (hostile(b'cos\nsystem\nX\x04\x00\x00\x00true\x85R'), 'os.system'),
  'eval': (hostile(b'cbuiltins\neval\n)R'), 'builtins.eval'),
  'inst': (b'(X\x04\x00\x00\x00trueios\nsystem\n.', 'neither|INST'),
  'a later inst': (hostile(b'(X\x04\x00\x00\x00trueios\nsystem\n'), 'opcode INST'),
  'extension': (hostile(b'\x82\x01'), 'opcode EXT1'),
  'stack global': (
    b'\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.', 'posix.system'
  ),
  'attribute': (b'\x80\x04\x8c\x05numpy\x8c\x0bf2py.system\x93.', 'numpy.f2py.system'),
  'calls a string': (hostile(b'X\x01\x00\x00\x00a)R'), 'calls what is no function'),
  'objects': (pickle.dumps(np.array([print], object)), "array of 'O8'"),
  'object dtype': (
    hostile(b'cnumpy\ndtype\nX\x02\x00\x00\x00O8\x85R'), "array of 'O8'"
  ),
  'memo': (hostile(b'Nr\xff\xff\xff\x7f0j\xff\xff\xff\x6f'), 'has not kept'),
  'long bytes': (hostile(b'\x8e' + struct.pack('<Q', 2**40)), 'ends early'),
  'long number': (hostile(b'\x8b' + struct.pack('<i', 2**30)), '1073741824 bytes'),
  'a list of itself': (hostile(b']q\x00h\x00a'), 'without end'),
  'a hash without end': (hostile(b'}Nq\x00' + b'h\x00\x86q\x00' * 60 + b'Ns'), 'dict'),
  'lists of lists': (
    hostile(b'K\x01q\x00' + b''.join(b'](h\x00h\x00eq\x00' for _ in range(30))),
    'without end',
  ),
  'many steps': (hostile(b'N0' * 500_001), 'more than 1000000 steps'),
  'copies': (
    hostile(
      b'c_codecs\nencode\nq\x00X' + struct.pack('<I', 10**6) + b'a' * 10**6
      + b'q\x01X\x06\x00\x00\x00latin1q\x02' + b'h\x00h\x01h\x02\x86R' * 1000
    ),
    'times its size',
  ),
}  # fmt: skip


@pytest.mark.parametrize('name', HOSTILE)
def test_what_is_no_data_is_refused_by_name(tmp_path, name):
  body, words = HOSTILE[name]
  path = tmp_path / 'G.pth'
  path.write_bytes(body)
  for read in (files.read_arrays, files.read_network_pickle):
    with pytest.raises(UserError, match=words) as found:
      read(path)
    assert str(path) in str(found.value)


def test_sizes_are_not_believed(tmp_path):
  path = tmp_path / 'bomb.npz'
  header = io.BytesIO()
  np.lib.format.write_array_header_1_0(
    header, {'descr': '<f4', 'fortran_order': False, 'shape': (10**11,)}
  )
  with zipfile.ZipFile(path, 'w') as z:
    z.writestr('a.npy', header.getvalue() + bytes(64))
  with pytest.raises(UserError, match='claims an array'):
    files.read_arrays(path)
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as z:
    z.writestr('a.npy', bytes(60 << 20))
  with pytest.raises(UserError, match='more than 20 times'):
    files.read_arrays(path)
  path.write_bytes(struct.pack('<Q', 30) + b'{"a": ' + bytes(24))
  with pytest.raises(UserError, match='damaged'):
    files.read_arrays(path)
  path.write_bytes(b'')
  with pytest.raises(UserError, match='empty'):
    files.read_arrays(path)
