"""The options of ProGAN's ablations (table 1), against NumPy in float64."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gan_jax.models.base import Batch
from gan_jax.models.progan import ProGAN
from tests.models.growing import phase
from tests.models.progressive_test import trained
from tests.nn.minibatch_discrimination_test import formula
from tests.parity.reference_files import on_one_device

ABLATION = ProGAN(
  res=4,
  dim_z=5,
  g_widths=(6, 6),
  d_widths=(6, 6),
  normalize_z=False,
  g_norm=False,
  g_batch_norm=True,
  g_relu=True,
  g_tanh=True,
  d_layer_norm=True,
  d_fused=False,
  equalized=False,
  mbstd_group=1,
  mbdisc_kernels=3,
  drift=0.0,
  dtype='float64',
)
NO_CLASS = np.zeros((8, 0))


def random_variables(gan, rng):
  """Variables of G and D in which no array is zero or one."""
  g, d = jax.eval_shape(gan.init, jax.random.key(0))

  def draw(path, x):
    values = rng.normal(size=x.shape)
    return np.abs(values) + 0.5 if path[-1].key == 'var' else values

  return jax.tree_util.tree_map_with_path(draw, (g, d))


def conv(x, kernel):
  """3x3 and 1x1 convolutions with zero padding, in NumPy."""
  size, (_, h, w, _) = len(kernel), x.shape
  x = np.pad(x, ((0, 0), (size // 2,) * 2, (size // 2,) * 2, (0, 0)))
  return sum(
    x[:, i : i + h, j : j + w] @ kernel[i, j] for i in range(size) for j in range(size)
  )


def batch_norm(x, p, mean, var):
  return (x - mean) / np.sqrt(var + 1e-4) * p['gain'] + p['bias']


def test_batch_norm_and_tanh_of_g_are_numpys(rng_seed):
  rng = np.random.default_rng(rng_seed)
  with jax.enable_x64(True):
    g, _ = random_variables(ABLATION, rng)
    z, p, stats = rng.normal(size=(8, 5)), g['params'], g['batch_stats']
    train = on_one_device(
      lambda g, z: ABLATION.generate_fakes(g, z, NO_CLASS, phase(4))
    )
    fakes, after = train(g, z)
    x = (z @ p['dense']['kernel']).reshape(8, 4, 4, 6)
    stored = x
    for name in ('dense', 'conv4'):
      if name == 'conv4':
        x = conv(x, p[name]['kernel'])
      mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
      ours = after['batch_stats'][f'{name}_norm']['stats']
      old = stats[f'{name}_norm']['stats']
      np.testing.assert_allclose(ours['mean'], 0.9 * old['mean'] + 0.1 * mean)
      np.testing.assert_allclose(ours['var'], 0.9 * old['var'] + 0.1 * var)
      x = np.maximum(batch_norm(x, p[f'{name}_norm'], mean, var), 0)
    images = np.tanh(conv(x, p['rgb4']['kernel']) + p['rgb4']['bias'])
    np.testing.assert_allclose(fakes, images, rtol=1e-9, atol=1e-12)
    # Without training the stored statistics are used.
    x = stored
    for name in ('dense', 'conv4'):
      if name == 'conv4':
        x = conv(x, p[name]['kernel'])
      x = batch_norm(x, p[f'{name}_norm'], **stats[f'{name}_norm']['stats'])
      x = np.maximum(x, 0)
    images = np.tanh(conv(x, p['rgb4']['kernel']) + p['rgb4']['bias'])
    ours = ABLATION.generate(g, z, jnp.zeros(8, jnp.int32))
    np.testing.assert_allclose(ours, images, rtol=1e-9, atol=1e-12)


def test_standing_statistics_are_means_of_batches(rng_seed):
  rng = np.random.default_rng(rng_seed)
  assert ABLATION.has_batch_stats and ABLATION.shares_batch_stats
  with jax.enable_x64(True):
    g, _ = random_variables(ABLATION, rng)
    z = rng.normal(size=(3, 8, 5))
    standing = on_one_device(ABLATION.standing_statistics)
    ours = standing(g, z, np.zeros((3, 8), np.int32))['batch_stats']
    x = (z @ g['params']['dense']['kernel']).reshape(3, -1, 6)
    first = ours['dense_norm']['stats']
    np.testing.assert_allclose(first['mean'][0, 0, 0], x.mean((0, 1)))
    np.testing.assert_allclose(first['var'][0, 0, 0], x.var(1).mean(0))


def layer_norm(x, p):
  axes = tuple(range(1, x.ndim))
  mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
  return (x - mean) / np.sqrt(var + 1e-4) * p['gain'] + p['bias']


def leaky(x):
  return np.where(x >= 0, x, 0.2 * x)


def test_layer_norm_and_minibatch_discrimination_of_d_are_numpys(rng_seed):
  rng = np.random.default_rng(rng_seed)
  with jax.enable_x64(True):
    _, d = random_variables(ABLATION, rng)
    images, p = rng.normal(size=(8, 4, 4, 3)), d['params']
    score, _ = on_one_device(lambda d, x: ABLATION.discriminate(d, x, phase(4)))(
      d, images
    )
    x = leaky(conv(images, p['rgb4']['kernel']) + p['rgb4']['bias'])
    x = leaky(layer_norm(conv(x, p['conv4']['kernel']), p['conv4_norm']))
    x = leaky(layer_norm(x.reshape(8, -1) @ p['dense0']['kernel'], p['dense0_norm']))
    x = formula(x, **p['compare'])
    want = x @ p['dense1']['kernel'] + p['dense1']['bias']
    np.testing.assert_allclose(score, want, rtol=1e-9, atol=1e-12)


def test_second_order_gradients_are_differences_of_the_loss(rng_seed):
  """WGAN-GP differentiates the gradient by the image once more, by D's weights."""
  rng = np.random.default_rng(rng_seed)
  with jax.enable_x64(True):
    g, d = random_variables(ABLATION, rng)
    batch = Batch(rng.normal(size=(8, 4, 4, 3)), np.zeros(8, np.int32))
    inputs = ABLATION.draw_inputs(jax.random.key(rng_seed), jnp.arange(8), phase(4))

    def loss(params):
      return ABLATION.d_loss(g, {'params': params}, batch, inputs, phase(4))[0]

    value_and_gradient = on_one_device(jax.value_and_grad(loss))
    v = jax.tree.map(lambda x: rng.normal(size=x.shape), d['params'])
    shifted = lambda step: jax.tree.map(lambda p, v: p + step * v, d['params'], v)
    values = [value_and_gradient(shifted(step))[0] for step in (1e-6, -1e-6)]
    slope = float(values[0] - values[1]) / 2e-6
    _, gradient = value_and_gradient(d['params'])
    ours = sum(
      jax.tree.leaves(jax.tree.map(lambda a, b: float((a * b).sum()), gradient, v))
    )
    assert ours == pytest.approx(slope, rel=1e-5)


GROWING = dataclasses.replace(
  ABLATION, res=8, g_widths=(6, 6, 5), d_widths=(6, 6, 5), dtype='float32'
)


def test_devices_and_mapping_change_nothing():
  # At 4 of 8 pixels: the batch statistics of layers out of use stay as they are.
  # Plain gradients: Adam would scale up those that are zero except for rounding.
  run = partial(trained, GROWING, at=phase(4, 1.0, 1e-2), tx=optax.identity())
  (one, _), (four, _) = run(1), run(4, mapped='pmap')
  for (path, a), b in zip(
    jax.tree_util.tree_leaves_with_path((four.g, four.d)),
    jax.tree.leaves((one.g, one.d)),
    strict=True,
  ):
    name = jax.tree_util.keystr(path)
    np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5, err_msg=name)
  stats = four.ema['batch_stats']
  assert np.any(np.asarray(stats['conv4_norm']['stats']['mean']) != 0)
  assert not np.any(np.asarray(stats['conv8_norm']['stats']['mean']))
