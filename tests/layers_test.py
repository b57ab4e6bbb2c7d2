"""Folded resampling, spectral norm and batch statistics against their plain forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from gan_jax import layers, step


def scalar(f):
  return lambda *args: jnp.sum(jnp.sin(f(*args)))


@pytest.mark.parametrize('size', [1, 3])
@pytest.mark.parametrize(
  'folded, plain',
  [
    (layers.up_conv, lambda x, k: layers.conv(layers.upsample(x), k)),
    (layers.down_conv, lambda x, k: layers.downsample(layers.conv(x, k))),
  ],
)
def test_folded_resampling_is_exact(folded, plain, size, rng_seed):
  rng = np.random.default_rng(rng_seed)
  with jax.enable_x64(True):
    x = jnp.asarray(rng.normal(size=(2, 6, 4, 3)))
    k = jnp.asarray(rng.normal(size=(size, size, 3, 5)))
    np.testing.assert_allclose(folded(x, k), plain(x, k), atol=1e-12)
    ours, theirs = (jax.grad(scalar(f), (0, 1))(x, k) for f in (folded, plain))
    for a, b in zip(ours, theirs, strict=True):
      np.testing.assert_allclose(a, b, atol=1e-11)

    def penalty(f):  # what R1 and the gradient penalty do
      return lambda k: jnp.sum(jax.grad(scalar(f))(x, k) ** 2)

    np.testing.assert_allclose(
      jax.grad(penalty(folded))(k), jax.grad(penalty(plain))(k), rtol=1e-9, atol=1e-9
    )


def test_spectral_norm_finds_the_singular_values(rng_seed):
  rng = np.random.default_rng(rng_seed)
  w = rng.normal(size=(3, 3, 8, 6)).astype(np.float32)
  params = {'conv': {'kernel': jnp.asarray(w), 'bias': jnp.ones(6)}, 'plain': {}}
  spectral = layers.init_spectral(jax.random.key(0), params, ('kernel',), vectors=3)
  normalized, after = layers.spectral_normalize(
    params, spectral, eps=1e-12, iterations=2000
  )
  singular = np.linalg.svd(w.reshape(-1, 6), compute_uv=False)
  np.testing.assert_allclose(after['conv']['sigma'], singular[:3], rtol=1e-3)
  kernel = np.asarray(normalized['conv']['kernel']).reshape(-1, 6)
  np.testing.assert_allclose(np.linalg.norm(kernel, 2), 1, rtol=1e-4)
  np.testing.assert_array_equal(normalized['conv']['bias'], 1)


def test_singular_values_beyond_the_rank_do_no_harm(rng_seed):
  rng = np.random.default_rng(rng_seed)
  params = {'linear': {'kernel': jnp.asarray(rng.normal(size=(8, 1)), jnp.float32)}}
  spectral = layers.init_spectral(jax.random.key(0), params, ('kernel',), vectors=3)
  one = {'linear': {'u': spectral['linear']['u'][:1], 'sigma': jnp.ones(1)}}

  def first(params, spectral):
    normalized, after = layers.spectral_normalize(params, spectral, eps=1e-12)
    return normalized['linear']['kernel'][0, 0], after['linear']

  gradient = jax.grad(first, has_aux=True)
  (ours, after), (theirs, _) = (gradient(params, s) for s in (spectral, one))
  np.testing.assert_array_equal(ours['linear']['kernel'], theirs['linear']['kernel'])
  for _ in range(3):
    _, after = gradient(params, {'linear': after})
    assert all(np.isfinite(x).all() for x in after.values())
  np.testing.assert_allclose(after['sigma'][1:], 0, atol=1e-5)


def test_a_weight_without_u_is_used_as_it_is():
  params = {'a': {'kernel': jnp.full((2, 2), 3.0)}}
  normalized, after = layers.spectral_normalize(params, {}, eps=1e-12)
  assert normalized == params and after == {}


@pytest.mark.parametrize('group', [0, 2])
def test_batch_statistics_span_the_mesh_or_its_groups(group, rng_seed):
  rng = np.random.default_rng(rng_seed)
  x = rng.normal(2, 3, size=(8, 4, 4, 5)).astype(np.float32)
  norm = layers.BatchNorm(group=group, momentum=1.0)
  variables = norm.init(jax.random.key(0), x, train=False)
  mesh = step.make_mesh(jax.devices()[:4])

  def apply(x):
    return norm.apply(variables, x, train=True, mutable=['batch_stats'])

  y, moved = jax.jit(
    jax.shard_map(
      apply,
      mesh=mesh,
      in_specs=P(layers.AXIS),
      out_specs=(P(layers.AXIS), P(layers.AXIS)),
      check_vma=False,
    )
  )(x)
  parts = 1 if not group else 4 // group
  for i, part in enumerate(np.split(x, parts)):
    mean, var = part.mean((0, 1, 2)), part.var((0, 1, 2))
    want = (part - mean) / np.sqrt(var + 1e-5)
    np.testing.assert_allclose(np.split(np.asarray(y), parts)[i], want, atol=2e-5)
    stored = np.split(np.asarray(moved['batch_stats']['var']), parts)[i]
    n = part.size // 5
    np.testing.assert_allclose(stored[0, 0, 0], var * n / (n - 1), rtol=1e-5)


def test_soft_labels_mix_embeddings():
  embed = layers.Embed(4, 3)
  variables = embed.init(jax.random.key(0), jnp.zeros(1, jnp.int32))
  rows = embed.apply(variables, jnp.arange(3))
  mixed = embed.apply(variables, jnp.array([[0.25, 0.0, 0.75]]))
  np.testing.assert_allclose(mixed[0], 0.25 * rows[0] + 0.75 * rows[2], rtol=1e-6)
