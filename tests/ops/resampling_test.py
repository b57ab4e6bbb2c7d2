"""Every form of resampling against the plain one, and where each form is used."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.ops import resampling
from gan_jax.ops.convolution import conv
from tests.gradients import (
  assert_equal_gradients,
  assert_equal_values,
  penalty,
  scalar,
)
from tests.platforms import lowered_for_cuda, traced_for

FORMS = (  # images, input width of up_conv and half that of down_conv, their forms
  (8, 8, 'plain', 'plain'),
  (8, 16, 'phases', 'strided'),
  (32, 4, 'plain', 'plain'),
  (32, 8, 'dilated', 'strided'),
)


def plain_up(x, k):
  return conv(resampling.upsample(x), k)


def plain_down(x, k):
  return resampling.downsample(conv(x, k))


UP_CASES = [
  (resampling.up_conv, form, plain_up, device)
  for form, devices in (
    ('phases', ('cpu', 'tpu')),
    ('products', ('cpu', 'tpu')),
    ('dilated', ('cpu', 'tpu')),
    ('transposed', ('gpu',)),
  )
  for device in devices
]
DOWN_CASES = [
  (resampling.down_conv, form, plain_down, device)
  for form, devices in (
    ('products', ('cpu', 'tpu')),
    ('strided', ('cpu', 'tpu', 'gpu')),
  )
  for device in devices
]


@pytest.mark.parametrize('size', [1, 3])
@pytest.mark.parametrize(
  'folded, form, plain, device',
  [
    pytest.param(*case, marks=pytest.mark.slow if case[-1] == 'tpu' else ())
    for case in UP_CASES + DOWN_CASES
  ],
)
def test_every_form_equals_the_plain_one(folded, form, plain, device, size, rng_seed):
  ours = lambda x, k: folded(x, k, form)
  rng = np.random.default_rng(rng_seed)
  with traced_for(device), jax.enable_x64(True):
    x = jnp.asarray(rng.normal(size=(2, 6, 4, 3)))
    k = jnp.asarray(rng.normal(size=(size, size, 3, 5)))
    assert_equal_values(ours, plain, (x, k), atol=1e-12)
    assert_equal_gradients(scalar(ours), scalar(plain), (x, k), atol=1e-11)
    by_kernel = [jax.grad(penalty(f), 1)(x, k) for f in (ours, plain)]
    np.testing.assert_allclose(*by_kernel, rtol=1e-9, atol=1e-9)


def test_an_unknown_platform_takes_the_plain_form_and_a_cpu_products():
  forms = resampling.up_form, resampling.down_form
  assert {form('', 8, width) for form in forms for width in (4, 128)} == {'plain'}
  assert {form('cpu', 8, width) for form in forms for width in (4, 128)} == {'products'}


@pytest.mark.parametrize('images, width, up, down', FORMS)
def test_a_tpu_folds_where_feature_maps_outweigh_kernels(images, width, up, down):
  assert resampling.up_form('tpu', images, width) == up
  assert resampling.down_form('tpu', images, 2 * width) == down


def test_a_tpu_v4_takes_phases_with_many_images_too():
  x, k = jnp.ones((16, 16, 16, 8)), jnp.ones((3, 3, 8, 8))
  for kind, dilated in (('TPU v4', False), ('TPU v5 lite', True)):
    with traced_for('tpu', kind):
      text = str(jax.make_jaxpr(lambda x, k: resampling.up_conv(x, k))(x, k))
    assert ('lhs_dilation=(2, 2)' in text) == dilated


@pytest.mark.parametrize(
  'images, width, up, down',
  [
    (8, 4, 'plain', 'plain'),
    (32, 4, 'transposed', 'strided'),
    (2, 512, 'transposed', 'strided'),
  ],
)
def test_a_gpu_folds_where_feature_maps_outweigh_kernels(images, width, up, down):
  assert resampling.up_form('gpu', images, width) == up
  assert resampling.down_form('gpu', images, 2 * width) == down


@pytest.mark.parametrize('folded', [resampling.up_conv, resampling.down_conv])
def test_a_gpu_dilates_by_cudnns_input_gradient(folded):
  """It writes no upsampled map, neither for values nor for gradients.

  XLA knows the input gradient by its kernel: the reversal of something that it must not
  look into.
  """
  x, k = (jax.ShapeDtypeStruct(s, 'bfloat16') for s in ((8, 32, 32, 6), (3, 3, 6, 4)))
  text = lowered_for_cuda(jax.grad(scalar(folded), (0, 1)), x, k)
  value = r'(%\w+) = stablehlo\.'
  operation = dict(re.findall(value + r'(\w+)', text))
  operand = dict(re.findall(value + r'reverse (%\w+)', text))
  kernels = re.findall(r'convolution\(%\w+, (%\w+)\).*lhs_dilate = \[2, 2\]', text)
  assert len(kernels) == 1
  assert operation[operand[kernels[0]]] == 'optimization_barrier'
  assert not re.search(r'tensor<8x\d+x2x\d+x2x', text)


def test_folding_for_a_cpu_rounds_no_more_than_the_plain_form(rng_seed):
  # See experiments/rounding.
  rng, worst = np.random.default_rng(rng_seed), {}
  for _ in range(5):
    x, kernel = rng.normal(size=(2, 8, 8, 24)), rng.normal(size=(3, 3, 24, 24))
    x, kernel = (a.astype('float32') for a in (x, kernel))
    with jax.enable_x64(True):
      wide = (a.astype('float64') for a in (x, kernel))
      exact = np.asarray(resampling.up_conv(*wide, 'plain'))
    for form in ('plain', 'products', 'phases'):
      y = np.asarray(resampling.up_conv(x, kernel, form), np.float64)
      worst.setdefault(form, []).append(float(np.abs(y - exact).max()))
  plain = max(worst['plain'])
  assert plain > 0 and max(max(errors) for errors in worst.values()) <= 2 * plain


@pytest.mark.parametrize('device', ['cpu', 'gpu'])
@pytest.mark.parametrize('taps', [(1, 2, 1), (1, 3), (1, 2, 3, 4)])
def test_a_blur_and_its_gradient_equal_matrix_products(taps, device, rng_seed):
  rng = np.random.default_rng(rng_seed)
  with traced_for(device), jax.enable_x64(True):
    x, g = (jnp.asarray(rng.normal(size=(1, 5, 5, 1))) for _ in range(2))
    before = (len(taps) - 1) // 2
    matrix = sum(
      tap / sum(taps) * np.eye(5, k=i - before) for i, tap in enumerate(taps)
    )
    y, back = jax.vjp(lambda x: resampling.blur(x, taps), x)
    plain = lambda m, x: (m @ x[0, :, :, 0] @ m.T)[None, :, :, None]
    np.testing.assert_allclose(y, plain(matrix, x), atol=1e-14)
    np.testing.assert_allclose(back(g)[0], plain(matrix.T, g), atol=1e-14)
