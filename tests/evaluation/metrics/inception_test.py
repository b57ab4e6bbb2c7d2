"""Inception-v3: which weights are accepted, and one-sentence errors for the others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import UserError
from gan_jax.evaluation.metrics import inception
from gan_jax.runtime.mesh import make_mesh


def zero_weights(classes):
  """Weights of the right names and shapes that are all zero."""
  network = inception.InceptionV3(classes)
  image = jnp.zeros((1, 299, 299, 3))
  shapes = jax.eval_shape(network.init, jax.random.key(0), image)['params']
  weights = {'fc.weight': np.zeros((classes, 2048)), 'fc.bias': np.zeros(classes)}
  for name, like in shapes.items():
    if not name.startswith('fc.'):
      h, w, i, o = like['kernel'].shape
      weights[f'{name}.conv.weight'] = np.zeros((o, i, h, w))
      for part in ('bn.weight', 'bn.bias', 'bn.running_mean', 'bn.running_var'):
        weights[f'{name}.{part}'] = np.zeros(o)
  return weights


def test_weights_must_be_complete_and_have_the_right_shapes():
  network = inception.fid_network()
  right = zero_weights(1008)
  right['AuxLogits.fc.bias'] = np.zeros(3)
  inception.convert_weights(network, right, 'mine.npz')
  with pytest.raises(UserError, match=r'mine.npz: fc.bias .*\(1, 1000\)'):
    inception.convert_weights(network, zero_weights(1000), 'mine.npz')
  with pytest.raises(UserError, match='does not have, for example extra'):
    inception.convert_weights(network, {**right, 'extra': np.zeros(1)}, 'mine.npz')


def test_files_that_are_not_inception_are_errors(tmp_path, monkeypatch):
  mesh = make_mesh(jax.devices()[:1])
  np.savez(tmp_path / 'other.npz', a=np.zeros(2))
  with pytest.raises(
    UserError, match='Conv2d_1a_3x3.conv.weight is missing among its 1'
  ):
    inception.load(tmp_path / 'other.npz', mesh)
  monkeypatch.delenv(inception.ENVIRONMENT, raising=False)
  with pytest.raises(UserError, match='--inception=FILE'):
    inception.load(None, mesh)
  with pytest.raises(UserError, match='allowed are torch, tf1'):
    inception.load(None, mesh, resizing='nearest')
