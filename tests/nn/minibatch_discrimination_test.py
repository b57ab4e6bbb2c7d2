"""Minibatch discrimination against the formula of its paper, on any devices."""

import jax
import jax.numpy as jnp
import numpy as np

from gan_jax.nn.minibatch_discrimination import MinibatchDiscrimination
from tests.gradients import penalty, scalar
from tests.nn.norms_test import sharded


def formula(x, theta, log_scale, bias):
  """Salimans et al. 2016, section 3.2, with the weight norm and bias of its code."""
  length = np.sqrt((theta**2).sum(0))
  m = np.einsum('bc,ckd->bkd', x, theta * np.exp(log_scale) / length)
  o = np.zeros((len(x), m.shape[1]))
  for i in range(len(x)):
    for j in range(len(x)):
      if i != j:
        o[i] += np.exp(-np.abs(m[i] - m[j]).sum(-1))
  return np.concatenate([x, o + bias], -1)


def test_it_is_the_formula_and_does_not_depend_on_the_devices(rng_seed):
  rng = np.random.default_rng(rng_seed)
  layer = MinibatchDiscrimination(kernels=4, dim=3)
  with jax.enable_x64(True):
    params = {
      'theta': rng.normal(size=(6, 4, 3)),
      'log_scale': rng.normal(size=(4, 3)),
      'bias': rng.normal(size=(1, 4)),
    }
    x = rng.normal(size=(8, 6))
    started = layer.init(jax.random.key(0), x)['params']
    assert jax.tree.map(jnp.shape, started) == jax.tree.map(np.shape, params)

    def apply(x):
      f = lambda x: layer.apply({'params': params}, x)
      return f(x), jax.grad(scalar(f))(x), jax.grad(penalty(f))(x)

    one, four = (sharded(apply, n)(x) for n in (1, 4))
    np.testing.assert_allclose(one[0], formula(x, **params), rtol=1e-10)
    # The squared gradient of four devices misses products of different devices.
    for a, b in zip(one[:2], four[:2], strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)

    def difference(x, v, step=1e-6):
      f = lambda x: float(np.sin(formula(x, **params)).sum())
      return (f(x + step * v) - f(x - step * v)) / (2 * step)

    v = rng.normal(size=x.shape)
    np.testing.assert_allclose(np.vdot(one[1], v), difference(x, v), rtol=1e-6)
