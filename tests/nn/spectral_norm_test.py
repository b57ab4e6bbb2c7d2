"""Power iteration against singular values, on one device and shared by several."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from gan_jax.nn import spectral_norm as norm
from gan_jax.runtime.mesh import make_mesh
from tests.platforms import traced_for


def on_devices(n, f, *args, out_specs=None):
  mesh = make_mesh(jax.devices()[:n])
  specs = dict(in_specs=P(), out_specs=P() if out_specs is None else out_specs)
  return jax.jit(jax.shard_map(f, mesh=mesh, check_vma=False, **specs))(*args)


def test_spectral_norm_finds_the_singular_values(rng_seed):
  rng = np.random.default_rng(rng_seed)
  w = rng.normal(size=(3, 3, 8, 6)).astype(np.float32)
  params = {'conv': {'kernel': jnp.asarray(w), 'bias': jnp.ones(6)}, 'plain': {}}
  spectral = norm.init_spectral(jax.random.key(0), params, ('kernel',), vectors=3)
  scales, after = norm.spectral_scales(params, spectral, eps=1e-12, iterations=2000)
  singular = np.linalg.svd(w.reshape(-1, 6), compute_uv=False)
  np.testing.assert_allclose(after['conv']['sigma'], singular[:3], rtol=1e-3)
  kernel = w.reshape(-1, 6) * np.asarray(scales['conv']['kernel'])
  np.testing.assert_allclose(np.linalg.norm(kernel, 2), 1, rtol=1e-4)
  assert set(scales) == {'conv'} and set(scales['conv']) == {'kernel'}


@pytest.mark.parametrize('devices', [1, 4])
def test_power_iteration_shared_by_devices_equals_that_of_one(devices, rng_seed):
  rng = np.random.default_rng(rng_seed)
  params = {  # 45, 5 and 6 rows, which four devices do not divide
    'a': {'kernel': jnp.asarray(rng.normal(size=(3, 3, 5, 6)), jnp.float32)},
    'b': {'c': {'kernel': jnp.asarray(rng.normal(size=(5, 7)), jnp.float32)}},
    'e': {'embedding': jnp.asarray(rng.normal(size=(9, 6)), jnp.float32)},
  }
  names = 'kernel', 'embedding'
  spectral = norm.init_spectral(jax.random.key(0), params, names)

  def both(params, shared):
    scales, after = norm.spectral_scales(
      params, spectral, eps=1e-4, iterations=2, shared=shared
    )
    weighted = jax.tree.map(
      lambda s, f: s * f,
      scales,
      {'a': {'kernel': 1.0}, 'b': {'c': {'kernel': 2.0}}, 'e': {'embedding': 3.0}},
    )
    return sum(jax.tree.leaves(weighted)), after

  def value_and_gradient(params, shared):
    return jax.value_and_grad(lambda p: both(p, shared), has_aux=True)(params)

  ours = on_devices(devices, lambda p: value_and_gradient(p, True), params)
  theirs = value_and_gradient(params, False)
  for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
    np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


def test_sigma_has_the_gradient_of_v_w_u(rng_seed):
  rng = np.random.default_rng(rng_seed)
  w = jnp.asarray(rng.normal(size=(4, 3)), jnp.float32)
  params = {'a': {'kernel': w}}
  spectral = norm.init_spectral(jax.random.key(0), params, ('kernel',))

  def scale(w):
    scales, after = norm.spectral_scales({'a': {'kernel': w}}, spectral, eps=1e-12)
    return scales['a']['kernel'], after['a']['u'][0]

  (value, u), ours = jax.value_and_grad(scale, has_aux=True)(w)
  v = w @ spectral['a']['u'][0]
  v /= jnp.linalg.norm(v)
  np.testing.assert_allclose(value, 1 / (v @ w @ u), rtol=1e-5)
  np.testing.assert_allclose(ours, -jnp.outer(v, u) * value**2, rtol=1e-4, atol=1e-6)


def test_singular_values_beyond_the_rank_are_zero_and_finite(rng_seed):
  rng = np.random.default_rng(rng_seed)
  params = {'linear': {'kernel': jnp.asarray(rng.normal(size=(8, 1)), jnp.float32)}}
  spectral = norm.init_spectral(jax.random.key(0), params, ('kernel',), vectors=3)
  one = {'linear': {'u': spectral['linear']['u'][:1], 'sigma': jnp.ones(1)}}

  def first(params, spectral):
    scales, after = norm.spectral_scales(params, spectral, eps=1e-12)
    kernel = params['linear']['kernel'] * scales['linear']['kernel']
    return kernel[0, 0], after['linear']

  gradient = jax.grad(first, has_aux=True)
  (ours, after), (theirs, _) = (gradient(params, s) for s in (spectral, one))
  np.testing.assert_array_equal(ours['linear']['kernel'], theirs['linear']['kernel'])
  for _ in range(3):
    _, after = gradient(params, {'linear': after})
    assert all(np.isfinite(x).all() for x in after.values())
  np.testing.assert_allclose(after['sigma'][1:], 0, atol=1e-5)


def test_a_weight_without_u_has_no_scale():
  params = {'a': {'kernel': jnp.full((2, 2), 3.0)}}
  assert norm.spectral_scales(params, {}, eps=1e-12) == ({}, {})


def test_a_gpu_iterates_all_weights_jointly_to_the_same_numbers(rng_seed):
  """By itself, also where other devices share the work: no mesh axis is needed."""
  rng = np.random.default_rng(rng_seed)
  programs, numbers = {}, {}
  with jax.enable_x64(True):
    params = {
      'a': {'kernel': jnp.asarray(rng.normal(size=(3, 3, 5, 6)))},
      'b': {'kernel': jnp.asarray(rng.normal(size=(5, 7)))},
      'zero': {'embedding': jnp.zeros((4, 3))},  # shorter than eps
    }
    spectral = norm.init_spectral(jax.random.key(0), params, ('kernel', 'embedding'))
    for platform in ('gpu', 'cpu'):

      def scales(params, shared=platform == 'gpu'):
        scales, after = norm.spectral_scales(params, spectral, eps=1e-4, shared=shared)
        return sum(map(jnp.sum, jax.tree.leaves(scales))), (scales, after)

      with traced_for(platform):
        programs[platform] = str(jax.make_jaxpr(scales)(params))
        numbers[platform] = jax.jit(jax.value_and_grad(scales, has_aux=True))(params)
  for x, y in zip(*map(jax.tree.leaves, numbers.values()), strict=True):
    np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-12)
  # Two kernels of lengths in place of two for each of three weights.
  assert [program.count('name=norm') for program in programs.values()] == [2, 6]
