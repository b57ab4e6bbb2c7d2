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
@pytest.mark.parametrize('device', ['cpu', 'tpu'])
@pytest.mark.parametrize(
  'name, form, plain',
  [
    ('up', 'phases', lambda x, k: layers.conv(layers.upsample(x), k)),
    ('down', 'phases', lambda x, k: layers.downsample(layers.conv(x, k))),
    ('down', 'strided', lambda x, k: layers.downsample(layers.conv(x, k))),
  ],
)
def test_every_form_of_resampling_is_exact(
  name, form, plain, device, size, monkeypatch, rng_seed
):
  monkeypatch.setattr(layers, f'{name}_form', lambda *_: form)
  monkeypatch.setattr(layers, 'platform', lambda: device)
  folded = getattr(layers, f'{name}_conv')
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


def test_a_bias_is_added_and_its_gradient_is_the_sum(rng_seed):
  rng = np.random.default_rng(rng_seed)
  x, bias = (jnp.asarray(rng.normal(size=s)) for s in ((2, 3, 5, 4), (1, 1, 1, 4)))
  np.testing.assert_array_equal(layers.add_bias(x, bias), x + bias)
  ours, theirs = (
    jax.grad(scalar(f), (0, 1))(x, bias) for f in (layers.add_bias, jnp.add)
  )
  for a, b in zip(ours, theirs, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
  # 4096 ones: a sum in bfloat16 would stop at 256.
  many = jnp.ones((4096, 2), jnp.bfloat16)
  _, back = jax.vjp(layers.add_bias, many, many[:1])
  np.testing.assert_array_equal(back(many)[1], 4096)


def test_the_form_follows_the_device_of_the_mesh():
  seen = {}

  def f(x):
    seen['on'] = layers.platform()
    return x

  on_devices(1, f, jnp.ones(1))
  assert seen['on'] == 'cpu' == layers.platform()
  nowhere = jax.sharding.AbstractMesh((4,), (layers.AXIS,))
  jax.make_jaxpr(
    jax.shard_map(f, mesh=nowhere, in_specs=P(), out_specs=P(), check_vma=False)
  )(jnp.ones(1))
  assert seen['on'] == ''
  forms = layers.up_form, layers.down_form
  assert {form('', size) for form in forms for size in (4, 128)} == {'plain'}
  assert [layers.up_form('tpu', size) for size in (8, 16, 64)] == [
    'plain',
    'phases',
    'phases',
  ]


def test_spectral_norm_finds_the_singular_values(rng_seed):
  rng = np.random.default_rng(rng_seed)
  w = rng.normal(size=(3, 3, 8, 6)).astype(np.float32)
  params = {'conv': {'kernel': jnp.asarray(w), 'bias': jnp.ones(6)}, 'plain': {}}
  spectral = layers.init_spectral(jax.random.key(0), params, ('kernel',), vectors=3)
  scales, after = layers.spectral_scales(params, spectral, eps=1e-12, iterations=2000)
  singular = np.linalg.svd(w.reshape(-1, 6), compute_uv=False)
  np.testing.assert_allclose(after['conv']['sigma'], singular[:3], rtol=1e-3)
  kernel = w.reshape(-1, 6) * np.asarray(scales['conv']['kernel'])
  np.testing.assert_allclose(np.linalg.norm(kernel, 2), 1, rtol=1e-4)
  assert set(scales) == {'conv'} and set(scales['conv']) == {'kernel'}


def on_devices(n, f, *args, out_specs=None):
  mesh = step.make_mesh(jax.devices()[:n])
  specs = dict(in_specs=P(), out_specs=P() if out_specs is None else out_specs)
  return jax.jit(jax.shard_map(f, mesh=mesh, check_vma=False, **specs))(*args)


@pytest.mark.parametrize('devices', [1, 4])
def test_a_shared_power_iteration_is_the_whole_one(devices, rng_seed):
  rng = np.random.default_rng(rng_seed)
  params = {  # 45, 5 and 6 rows: not what four devices divide
    'a': {'kernel': jnp.asarray(rng.normal(size=(3, 3, 5, 6)), jnp.float32)},
    'b': {'c': {'kernel': jnp.asarray(rng.normal(size=(5, 7)), jnp.float32)}},
    'e': {'embedding': jnp.asarray(rng.normal(size=(9, 6)), jnp.float32)},
  }
  names = 'kernel', 'embedding'
  spectral = layers.init_spectral(jax.random.key(0), params, names)

  def both(params, shared):
    scales, after = layers.spectral_scales(
      params, spectral, eps=1e-4, iterations=2, shared=shared
    )
    weighted = jax.tree.map(
      lambda s, f: s * f,
      scales,
      {'a': {'kernel': 1.0}, 'b': {'c': {'kernel': 2.0}}, 'e': {'embedding': 3.0}},
    )
    return sum(jax.tree.leaves(weighted)), after

  def found(params, shared):
    return jax.value_and_grad(lambda p: both(p, shared), has_aux=True)(params)

  ours = on_devices(devices, lambda p: found(p, True), params)
  theirs = found(params, False)
  for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
    np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


def test_sigma_has_the_gradient_of_v_w_u(rng_seed):
  rng = np.random.default_rng(rng_seed)
  w = jnp.asarray(rng.normal(size=(4, 3)), jnp.float32)
  params = {'a': {'kernel': w}}
  spectral = layers.init_spectral(jax.random.key(0), params, ('kernel',))

  def scale(w):
    scales, after = layers.spectral_scales({'a': {'kernel': w}}, spectral, eps=1e-12)
    return scales['a']['kernel'], after['a']['u'][0]

  (value, u), ours = jax.value_and_grad(scale, has_aux=True)(w)
  v = w @ spectral['a']['u'][0]
  v /= jnp.linalg.norm(v)
  np.testing.assert_allclose(value, 1 / (v @ w @ u), rtol=1e-5)
  np.testing.assert_allclose(ours, -jnp.outer(v, u) * value**2, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('pixels', [1, 64])
def test_a_scale_is_the_weight_s_wherever_it_is_applied(pixels, rng_seed):
  # The weight is the larger one for one pixel, the picture for 64.
  rng = np.random.default_rng(rng_seed)
  x = jnp.asarray(rng.normal(size=(1, pixels, 1, 4)), jnp.float32)
  module = layers.Conv(3, size=3)
  variables = module.init(jax.random.key(0), x)
  scales = {'scales': {'kernel': jnp.float32(0.25)}}
  kernel = variables['params']['kernel'] / 4
  plain = {'params': {**variables['params'], 'kernel': kernel}}
  ours, theirs = module.apply({**variables, **scales}, x), module.apply(plain, x)
  np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
  assert np.abs(ours - module.apply(variables, x)).max() > 0.01


def test_singular_values_beyond_the_rank_do_no_harm(rng_seed):
  rng = np.random.default_rng(rng_seed)
  params = {'linear': {'kernel': jnp.asarray(rng.normal(size=(8, 1)), jnp.float32)}}
  spectral = layers.init_spectral(jax.random.key(0), params, ('kernel',), vectors=3)
  one = {'linear': {'u': spectral['linear']['u'][:1], 'sigma': jnp.ones(1)}}

  def first(params, spectral):
    scales, after = layers.spectral_scales(params, spectral, eps=1e-12)
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
  assert layers.spectral_scales(params, {}, eps=1e-12) == ({}, {})


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


@pytest.mark.parametrize('held, loops', [(2**22, 0), (2 * 64 * 16, 1), (1, 1)])
def test_attention_in_parts_is_softmax(held, loops, monkeypatch, rng_seed):
  monkeypatch.setattr(layers, '_SCORES', held)
  rng = np.random.default_rng(rng_seed)
  shapes = (6, 64, 8), (6, 16, 8), (6, 16, 24)

  def plain(query, key, value):
    scores = jnp.einsum('bqc,bkc->bqk', query, key)
    return jnp.einsum('bqk,bkc->bqc', jax.nn.softmax(scores), value)

  with jax.enable_x64(True):
    # Scores of some hundreds: nothing overflows.
    some = [jnp.asarray(4 * rng.normal(size=s)) for s in shapes]
    np.testing.assert_allclose(layers.attend(*some), plain(*some), atol=1e-12)
    ours, theirs = (
      jax.grad(scalar(f), (0, 1, 2))(*some) for f in (layers.attend, plain)
    )
    for a, b in zip(ours, theirs, strict=True):
      np.testing.assert_allclose(a, b, atol=1e-11)
    jaxpr = jax.make_jaxpr(lambda *x: layers.attend(*x))(*some)
  assert str(jaxpr).count('scan[') == loops


def test_attention_is_softmax_over_pooled_keys(rng_seed):
  rng = np.random.default_rng(rng_seed)
  x = jnp.asarray(rng.normal(size=(2, 4, 4, 16)), jnp.float32)
  module = layers.Attention(layers.Conv)
  params = jax.tree.map(
    lambda p: jnp.asarray(rng.normal(size=p.shape), p.dtype),
    module.init(jax.random.key(0), x),
  )['params']

  def by_hand(x, params):
    flat = x.reshape(2, 16, 16)
    q, k, v = (flat @ params[name]['kernel'][0, 0] for name in ('theta', 'phi', 'g'))
    pool = lambda y: y.reshape(2, 2, 2, 2, 2, -1).max((2, 4)).reshape(2, 4, -1)
    weights = jax.nn.softmax(q @ pool(k).swapaxes(1, 2))
    out = weights @ pool(v) @ params['o']['kernel'][0, 0]
    return x + params['gamma'] * out.reshape(x.shape)

  ours = lambda x, p: module.apply({'params': p}, x)
  np.testing.assert_allclose(ours(x, params), by_hand(x, params), rtol=1e-4, atol=1e-4)
  gradients = [jax.grad(scalar(f), (0, 1))(x, params) for f in (ours, by_hand)]
  for a, b in zip(*map(jax.tree.leaves, gradients), strict=True):
    np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3)
