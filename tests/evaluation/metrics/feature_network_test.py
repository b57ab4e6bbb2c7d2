"""Files of weights, their fingerprints, and the cache."""

import numpy as np
import pytest

from gan_jax import UserError
from gan_jax.evaluation.metrics.feature_network import read_weights, save_npz


def test_missing_and_corrupted_files_are_errors(tmp_path):
  (tmp_path / 'w-0123abcd.npz').write_bytes(b'')
  with pytest.raises(UserError, match='begins with e3b0c442, but its name says 0123'):
    read_weights(tmp_path / 'w-0123abcd.npz')
  (tmp_path / 'torn.npz').write_bytes(b'PK not a file')
  with pytest.raises(UserError, match='torn.npz'):
    read_weights(tmp_path / 'torn.npz')
  with pytest.raises(UserError, match='no such file'):
    read_weights(tmp_path / 'absent.pth')


def test_a_cache_that_cannot_be_written_is_an_error(tmp_path):
  (tmp_path / 'file').write_bytes(b'')
  with pytest.raises(UserError, match='cannot be written .*--cache'):
    save_npz(tmp_path / 'file' / 'a.npz', {'a': np.zeros(2)})
