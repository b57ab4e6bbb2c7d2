"""Array files whose headers claim sizes that the file does not have."""

import io
import struct
import zipfile

import numpy as np
import pytest

from gan_jax import UserError
from gan_jax.storage import weights


def test_claimed_sizes_are_checked_against_the_file(tmp_path):
  path = tmp_path / 'bomb.npz'
  header = io.BytesIO()
  np.lib.format.write_array_header_1_0(
    header, {'descr': '<f4', 'fortran_order': False, 'shape': (10**11,)}
  )
  with zipfile.ZipFile(path, 'w') as z:
    z.writestr('a.npy', header.getvalue() + bytes(64))
  with pytest.raises(UserError, match='claims an array'):
    weights.read_arrays(path)
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as z:
    z.writestr('a.npy', bytes(60 << 20))
  with pytest.raises(UserError, match='more than 20 times'):
    weights.read_arrays(path)
  path.write_bytes(struct.pack('<Q', 30) + b'{"a": ' + bytes(24))
  with pytest.raises(UserError, match='corrupted'):
    weights.read_arrays(path)
  path.write_bytes(b'')
  with pytest.raises(UserError, match='empty'):
    weights.read_arrays(path)
