"""Files of weights in every format read to the same arrays."""

import pickle
import zipfile
from pathlib import Path

import numpy as np

from gan_jax.storage import weights

CHECKPOINTS = Path(__file__).parents[1] / 'golden' / 'biggan_metrics' / 'checkpoints'


def test_npz_and_pickles_of_all_protocols_read_the_same(tmp_path, rng_seed):
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
    got = weights.read_arrays(path)
    assert got.keys() == want.keys(), path
    for name, value in want.items():
      np.testing.assert_array_equal(got[name], value, err_msg=f'{path} {name}')


def test_both_formats_of_torch_save_read_the_same():
  zipped = weights.read_arrays(CHECKPOINTS / 'exp_zip' / 'G_ema.pth')
  legacy = weights.read_arrays(CHECKPOINTS / 'exp_legacy' / 'G_ema.pth')
  assert len(zipped) == 110 and zipped.keys() == legacy.keys()
  for name, value in zipped.items():
    np.testing.assert_array_equal(value, legacy[name])
  with np.load(CHECKPOINTS / 'expected_biggan.npz') as z:
    for side in ('G', 'D', 'G_ema'):
      stored = [name for name in z.files if name.startswith(f'{side}/')]
      assert stored
      got = weights.read_arrays(CHECKPOINTS / 'exp_zip' / f'{side}.pth')
      for name in stored:
        np.testing.assert_array_equal(got[name.partition('/')[2]], z[name])
    state = weights.read_tree(CHECKPOINTS / 'exp_zip' / 'G_optim.pth')['state']
    for name in (n for n in z.files if n.startswith('G_optim/')):
      _, index, _, kind = name.split('/')
      np.testing.assert_array_equal(state[int(index)][kind], z[name])


def test_activation_modules_in_settings_become_records(tmp_path):
  """BigGAN-PyTorch saves torch.nn.ReLU objects among its settings."""
  relu = b'ctorch.nn.modules.activation\nReLU\n)\x81}X\x07\x00\x00\x00inplace\x88sb'
  body = b'\x80\x02}(X\x06\x00\x00\x00configM\x00\x04X\x01\x00\x00\x00a' + relu + b'u.'
  path = tmp_path / 'state_dict.pth'
  with zipfile.ZipFile(path, 'w') as z:
    z.writestr('state_dict/data.pkl', body)
  tree = weights.read_tree(path)
  assert tree['config'] == 1024
  assert tree['a'].state == {'inplace': True}
