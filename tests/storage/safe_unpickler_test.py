"""Hostile pickles: none runs code, allocates without limit or loops."""

import pickle
import struct

import numpy as np
import pytest

from gan_jax import UserError
from gan_jax.storage import weights


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
  'calls a string': (
    hostile(b'X\x01\x00\x00\x00a)R'), 'calls a value that is not a function'
  ),
  'objects': (pickle.dumps(np.array([print], object)), "dtype 'O8'"),
  'object dtype': (
    hostile(b'cnumpy\ndtype\nX\x02\x00\x00\x00O8\x85R'), "dtype 'O8'"
  ),
  'memo': (hostile(b'Nr\xff\xff\xff\x7f0j\xff\xff\xff\x6f'), 'memo entry'),
  'long bytes': (hostile(b'\x8e' + struct.pack('<Q', 2**40)), 'ends early'),
  'long number': (hostile(b'\x8b' + struct.pack('<i', 2**30)), '1073741824 bytes'),
  'a list of itself': (hostile(b']q\x00h\x00a'), 'nested'),
  'a hash without end': (hostile(b'}Nq\x00' + b'h\x00\x86q\x00' * 60 + b'Ns'), 'dict'),
  'lists of lists': (
    hostile(b'K\x01q\x00' + b''.join(b'](h\x00h\x00eq\x00' for _ in range(30))),
    'nested',
  ),
  'many steps': (hostile(b'N0' * 500_001), 'more than 1000000 opcodes'),
  'copies': (
    hostile(
      b'c_codecs\nencode\nq\x00X' + struct.pack('<I', 10**6) + b'a' * 10**6
      + b'q\x01X\x06\x00\x00\x00latin1q\x02' + b'h\x00h\x01h\x02\x86R' * 1000
    ),
    'times its size',
  ),
}  # fmt: skip


@pytest.mark.parametrize('name', HOSTILE)
def test_a_hostile_pickle_is_rejected_by_name(tmp_path, name):
  body, words = HOSTILE[name]
  path = tmp_path / 'G.pth'
  path.write_bytes(body)
  for read in (weights.read_arrays, weights.read_network_pickle):
    with pytest.raises(UserError, match=words) as found:
      read(path)
    assert str(path) in str(found.value)
