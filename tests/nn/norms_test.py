"""Normalization and its gradients against the formulas; statistics over devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from gan_jax import UserError
from gan_jax.nn import norms
from gan_jax.runtime.mesh import AXIS, make_mesh
from tests.gradients import assert_equal_gradients, assert_equal_values, scalar
from tests.platforms import traced_for


def plain_statistics(x):
  return x.mean((1, 2), keepdims=True), x.var((1, 2), keepdims=True)


def plain_instance_norm(x, gain, bias):
  mean, var = plain_statistics(x)
  return (x - mean) / jnp.sqrt(var + 1e-8) * gain + bias


@pytest.mark.parametrize('device', ['cpu', 'tpu'])
@pytest.mark.parametrize(
  'ours, plain, shapes',
  [
    (norms.image_statistics, plain_statistics, [(3, 4, 6, 5)]),
    (norms.instance_norm, plain_instance_norm, [(3, 4, 6, 5), *[(3, 1, 1, 5)] * 2]),
  ],
)
def test_values_and_gradients_equal_the_formula_s(
  ours, plain, shapes, device, rng_seed
):
  rng = np.random.default_rng(rng_seed)
  with traced_for(device), jax.enable_x64(True):
    args = [jnp.asarray(rng.normal(1, 2, size=s)) for s in shapes]
    assert_equal_values(ours, plain, args, rtol=1e-11, atol=1e-11)
    assert_equal_gradients(scalar(ours), scalar(plain), args, rtol=1e-9, atol=1e-9)


def sharded(f, devices):
  """f of a batch that is sharded over devices."""
  mesh = make_mesh(jax.devices()[:devices])
  specs = dict(in_specs=P(AXIS), out_specs=P(AXIS))
  return jax.jit(jax.shard_map(f, mesh=mesh, check_vma=False, **specs))


@pytest.mark.parametrize('group', [0, 2])
def test_batch_statistics_span_the_mesh_or_groups_of_devices(group, rng_seed):
  rng = np.random.default_rng(rng_seed)
  x = rng.normal(2, 3, size=(8, 4, 4, 5)).astype(np.float32)
  statistics = norms.BatchStatistics(group=group, momentum=1.0)
  variables = statistics.init(jax.random.key(0), x, train=False)

  def apply(x):
    return statistics.apply(variables, x, train=True, mutable=['batch_stats'])

  (means, scales), updated = sharded(apply, 4)(x)
  parts = 1 if not group else 4 // group
  for i, part in enumerate(np.split(x, parts)):
    mean, var = part.mean((0, 1, 2)), part.var((0, 1, 2))
    ours = lambda y, i=i: np.split(np.asarray(y), parts)[i][0, 0, 0]
    np.testing.assert_allclose(ours(means), mean, rtol=1e-5)
    np.testing.assert_allclose(ours(scales), 1 / np.sqrt(var + 1e-5), rtol=1e-5)
    n = part.size // 5
    np.testing.assert_allclose(
      ours(updated['batch_stats']['var']), var * n / (n - 1), rtol=1e-5
    )


def test_pixel_norm_is_over_channels(rng_seed):
  x = np.random.default_rng(rng_seed).normal(size=(2, 3, 4, 5)).astype(np.float32)
  want = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-8)
  np.testing.assert_allclose(norms.pixel_norm(x), want, rtol=1e-6)


@pytest.mark.parametrize('devices', [2, 4])
def test_minibatch_stddev_is_independent_of_the_number_of_devices(devices, rng_seed):
  rng = np.random.default_rng(rng_seed)
  x = jnp.asarray(rng.normal(size=(8, 4, 4, 6)), jnp.float32)

  def value_and_gradient(x):
    score = lambda x: jnp.sum(jnp.sin(norms.minibatch_stddev(x, 4, 2)))
    return norms.minibatch_stddev(x, 4, 2), jax.grad(score)(x)

  one, many = (sharded(value_and_gradient, n)(x) for n in (1, devices))
  for a, b in zip(many, one, strict=True):
    np.testing.assert_allclose(a, b, atol=2e-6)
  group = np.asarray(x[:4]).reshape(4, 4, 4, 2, 3)  # two features of three channels
  want = np.sqrt(group.var(0) + 1e-8).mean((0, 1, 3))
  np.testing.assert_allclose(one[0][0, 0, 0, 6:], want, rtol=1e-5)


def test_a_batch_that_groups_do_not_divide_is_an_error():
  with pytest.raises(UserError, match='a batch of 6 does not divide into groups of 4'):
    jax.eval_shape(sharded(norms.minibatch_stddev, 1), jnp.zeros((6, 4, 4, 3)))
