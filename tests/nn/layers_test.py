"""Products, attention and filters against their plain forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.nn import layers
from gan_jax.ops import attention, reductions, resampling


def scalar(f):
  return lambda *args: jnp.sum(jnp.sin(f(*args)))


def test_a_bias_is_added_and_its_gradient_is_the_sum(rng_seed):
  rng = np.random.default_rng(rng_seed)
  x, bias = (jnp.asarray(rng.normal(size=s)) for s in ((2, 3, 5, 4), (1, 1, 1, 4)))
  np.testing.assert_array_equal(reductions.add_bias(x, bias), x + bias)
  ours, theirs = (
    jax.grad(scalar(f), (0, 1))(x, bias) for f in (reductions.add_bias, jnp.add)
  )
  for a, b in zip(ours, theirs, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
  # 4096 ones: a sum in bfloat16 would stop at 256.
  many = jnp.ones((4096, 2), jnp.bfloat16)
  _, back = jax.vjp(reductions.add_bias, many, many[:1])
  np.testing.assert_array_equal(back(many)[1], 4096)


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


def test_soft_labels_mix_embeddings():
  embed = layers.Embed(4, 3)
  variables = embed.init(jax.random.key(0), jnp.zeros(1, jnp.int32))
  rows = embed.apply(variables, jnp.arange(3))
  mixed = embed.apply(variables, jnp.array([[0.25, 0.0, 0.75]]))
  np.testing.assert_allclose(mixed[0], 0.25 * rows[0] + 0.75 * rows[2], rtol=1e-6)


@pytest.mark.parametrize('device', ['cpu', 'tpu'])
@pytest.mark.parametrize('held, loops', [(2**22, 0), (2 * 64 * 16, 1), (1, 1)])
def test_attention_in_parts_is_softmax(held, loops, device, monkeypatch, rng_seed):
  monkeypatch.setattr(layers, 'platform', lambda: device)
  monkeypatch.setattr(layers, '_SCORES', held)
  rng = np.random.default_rng(rng_seed)
  shapes = (6, 64, 8), (6, 16, 8), (6, 16, 24)

  def plain(query, key, value):
    scores = jnp.einsum('bqc,bkc->bqk', query, key)
    return jnp.einsum('bqk,bkc->bqc', jax.nn.softmax(scores), value)

  with jax.enable_x64(True):
    # Scores of some hundreds: nothing overflows.
    some = [jnp.asarray(4 * rng.normal(size=s)) for s in shapes]
    np.testing.assert_allclose(attention.attend(*some), plain(*some), atol=1e-12)
    ours, theirs = (
      jax.grad(scalar(f), (0, 1, 2))(*some) for f in (attention.attend, plain)
    )
    for a, b in zip(ours, theirs, strict=True):
      np.testing.assert_allclose(a, b, atol=1e-11)
    jaxpr = jax.make_jaxpr(lambda *x: attention.attend(*x))(*some)
  assert str(jaxpr).count('scan[') == loops


@pytest.mark.parametrize('device', ['cpu', 'tpu'])
def test_attention_in_bfloat16_keeps_large_scores(device, monkeypatch, rng_seed):
  monkeypatch.setattr(layers, 'platform', lambda: device)
  rng = np.random.default_rng(rng_seed)
  shapes = (2, 64, 8), (2, 16, 8), (2, 16, 24), (2, 64, 24)
  *some, g = (jnp.asarray(4 * rng.normal(size=s), jnp.bfloat16) for s in shapes)
  wide = [x.astype(jnp.float32) for x in some]
  ours, theirs = (
    jax.vjp(attention.attend, *x)[1](g.astype(x[0].dtype)) for x in (some, wide)
  )
  for a, b in zip(ours, theirs, strict=True):
    error = np.abs(np.asarray(a, np.float32) - b).max() / np.abs(b).max()
    assert error < 0.05


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


@pytest.mark.parametrize('taps', [(1, 2, 1), (1, 3), (1, 2, 3, 4)])
def test_a_blur_is_its_matrix_forward_and_backward(taps, rng_seed):
  rng = np.random.default_rng(rng_seed)
  with jax.enable_x64(True):
    x, g = (jnp.asarray(rng.normal(size=(1, 5, 5, 1))) for _ in range(2))
    before = (len(taps) - 1) // 2
    matrix = sum(
      tap / sum(taps) * np.eye(5, k=i - before) for i, tap in enumerate(taps)
    )
    y, back = jax.vjp(lambda x: resampling.blur(x, taps), x)
    plain = lambda m, x: (m @ x[0, :, :, 0] @ m.T)[None, :, :, None]
    np.testing.assert_allclose(y, plain(matrix, x), atol=1e-14)
    np.testing.assert_allclose(back(g)[0], plain(matrix.T, g), atol=1e-14)
