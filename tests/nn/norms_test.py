"""Normalisations and their gradients against the formulas, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from gan_jax.nn import norms
from gan_jax.ops import reductions
from gan_jax.runtime.mesh import AXIS, make_mesh


def plain_rescaled(x, mean, scale, bias):
  return (x - mean) * scale + bias


def plain_moments(x):
  return tuple(y.sum((1, 2), keepdims=True) for y in (x, x**2))


def plain_statistics(x):
  return x.mean((1, 2), keepdims=True), x.var((1, 2), keepdims=True)


def plain_instance_norm(x, gain, bias):
  mean, var = plain_statistics(x)
  return (x - mean) / jnp.sqrt(var + 1e-8) * gain + bias


@pytest.mark.parametrize('device', ['cpu', 'tpu'])
@pytest.mark.parametrize(
  'ours, plain, shapes',
  [
    (reductions.moments, plain_moments, [(3, 4, 6, 5)]),
    (norms.image_statistics, plain_statistics, [(3, 4, 6, 5)]),
    (norms.instance_norm, plain_instance_norm, [(3, 4, 6, 5), *[(3, 1, 1, 5)] * 2]),
    (reductions.scale_and_shift, plain_rescaled, [(3, 4, 6, 5), *[(1, 1, 1, 5)] * 3]),
    (
      reductions.scale_and_shift,
      plain_rescaled,
      [(3, 4, 6, 5), (1, 1, 1, 5), (3, 1, 1, 5), (3, 1, 1, 5)],
    ),
  ],
)
def test_values_and_gradients_are_the_formula_s(
  ours, plain, shapes, device, monkeypatch, rng_seed
):
  monkeypatch.setattr(norms, 'platform', lambda: device)
  rng = np.random.default_rng(rng_seed)

  def scalar(f):
    return lambda *args: sum(jnp.sin(y).sum() for y in jax.tree.leaves(f(*args)))

  with jax.enable_x64(True):
    args = [jnp.asarray(rng.normal(1, 2, size=s)) for s in shapes]
    for a, b in zip(*(jax.tree.leaves(f(*args)) for f in (ours, plain)), strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)
    everything = tuple(range(len(args)))
    for a, b in zip(
      *(jax.grad(scalar(f), everything)(*args) for f in (ours, plain)), strict=True
    ):
      np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def test_sums_of_bfloat16_are_float32():
  ones = jnp.ones((2, 64, 64, 3), jnp.bfloat16)  # a bfloat16 sum would stop at 256
  for total in reductions.moments(ones):
    assert total.dtype == jnp.float32
    np.testing.assert_array_equal(total, 4096)
  scale = jnp.ones((1, 1, 1, 3))
  y, back = jax.vjp(reductions.scale_and_shift, ones, 0 * scale, scale, 0 * scale)
  assert y.dtype == jnp.bfloat16
  np.testing.assert_array_equal(back(ones)[3], 2 * 4096)


@pytest.mark.parametrize('group', [0, 2])
def test_batch_statistics_span_the_mesh_or_its_groups(group, rng_seed):
  rng = np.random.default_rng(rng_seed)
  x = rng.normal(2, 3, size=(8, 4, 4, 5)).astype(np.float32)
  statistics = norms.BatchStatistics(group=group, momentum=1.0)
  variables = statistics.init(jax.random.key(0), x, train=False)
  mesh = make_mesh(jax.devices()[:4])

  def apply(x):
    return statistics.apply(variables, x, train=True, mutable=['batch_stats'])

  (means, scales), moved = jax.jit(
    jax.shard_map(
      apply,
      mesh=mesh,
      in_specs=P(AXIS),
      out_specs=(P(AXIS), P(AXIS)),
      check_vma=False,
    )
  )(x)
  parts = 1 if not group else 4 // group
  for i, part in enumerate(np.split(x, parts)):
    mean, var = part.mean((0, 1, 2)), part.var((0, 1, 2))
    ours = lambda y, i=i: np.split(np.asarray(y), parts)[i][0, 0, 0]
    np.testing.assert_allclose(ours(means), mean, rtol=1e-5)
    np.testing.assert_allclose(ours(scales), 1 / np.sqrt(var + 1e-5), rtol=1e-5)
    n = part.size // 5
    np.testing.assert_allclose(
      ours(moved['batch_stats']['var']), var * n / (n - 1), rtol=1e-5
    )


def test_pixels_are_normalised_over_channels(rng_seed):
  x = np.random.default_rng(rng_seed).normal(size=(2, 3, 4, 5)).astype(np.float32)
  want = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-8)
  np.testing.assert_allclose(norms.pixel_norm(x), want, rtol=1e-6)
