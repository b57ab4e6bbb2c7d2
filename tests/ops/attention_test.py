"""Attention in chunks of images against softmax, with gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.ops.attention import MAX_SCORES, attend
from tests.gradients import (
  assert_equal_gradients,
  assert_equal_values,
  penalty,
  scalar,
)
from tests.platforms import lowered_for_cuda, traced_for


def plain(query, key, value):
  scores = jnp.einsum('bqc,bkc->bqk', query, key)
  return jnp.einsum('bqk,bkc->bqc', jax.nn.softmax(scores), value)


@pytest.mark.parametrize(
  'max_scores, loops, device',
  [
    (MAX_SCORES, 0, 'cpu'),
    (2 * 64 * 16, 1, 'cpu'),
    (1, 1, 'cpu'),
    (MAX_SCORES, 0, 'tpu'),
    (2 * 64 * 16, 1, 'tpu'),
    (None, 0, 'gpu'),
  ],
)
def test_chunks_of_images_equal_softmax(max_scores, loops, device, rng_seed):
  rng = np.random.default_rng(rng_seed)
  shapes = (6, 64, 8), (6, 16, 8), (6, 16, 24)
  ours = lambda *args: attend(*args, max_scores)
  with traced_for(device), jax.enable_x64(True):
    # Scores of several hundreds: nothing overflows.
    args = [jnp.asarray(4 * rng.normal(size=s)) for s in shapes]
    assert_equal_values(ours, plain, args, atol=1e-12)
    assert_equal_gradients(scalar(ours), scalar(plain), args, atol=1e-11)
    jaxpr = jax.make_jaxpr(ours)(*args)
  assert str(jaxpr).count('scan[') == loops


def test_flash_attention_equals_softmax(rng_seed):
  """With its gradients, and with second derivatives by products."""
  rng = np.random.default_rng(rng_seed)
  ours = lambda *args: attend(*args, form='flash')
  with jax.enable_x64(True):
    # Queries and keys are padded; values divide into two heads of 96.
    shapes = (2, 16, 3), (2, 4, 3), (2, 4, 192)
    args = [jnp.asarray(rng.normal(size=s)) for s in shapes]
    assert_equal_values(ours, plain, args, atol=1e-12)
    assert_equal_gradients(scalar(ours), scalar(plain), args, atol=1e-12)
    assert_equal_gradients(penalty(ours), penalty(plain), args, atol=1e-10)


def gpu_program(c, v, dtype, kind='', batch=6, gradient=False):
  """Attention lowered for an NVIDIA GPU."""
  shapes = (batch, 64, c), (batch, 16, c), (batch, 16, v)
  args = [jax.ShapeDtypeStruct(s, dtype) for s in shapes]
  f = scalar(lambda *args: attend(*args))
  return lowered_for_cuda(jax.grad(f) if gradient else f, *args, kind=kind)


@pytest.mark.parametrize(
  'c, v, dtype, kind, flash',
  [
    (12, 48, 'bfloat16', 'NVIDIA H100 80GB HBM3', True),
    (24, 96, 'bfloat16', 'NVIDIA A100-SXM4-40GB', True),
    (48, 192, 'float16', 'NVIDIA L4', True),
    (12, 48, 'float32', 'NVIDIA H100 80GB HBM3', False),
    (12, 48, 'bfloat16', 'Tesla V100-SXM2-16GB', False),
    (12, 48, 'bfloat16', 'Tesla T4', False),
    (12, 48, 'bfloat16', 'AMD Instinct MI300X', False),
    (12, 52, 'bfloat16', 'NVIDIA H100 80GB HBM3', False),  # no head of 8 n channels
  ],
)
def test_a_gpu_has_no_loop_over_images(c, v, dtype, kind, flash):
  text = gpu_program(c, v, dtype, kind)
  assert ('cudnn$fmhaSoftmax(' in text) == flash
  assert 'while' not in text and ('dot_general' in text) == (not flash)


def test_a_gpu_takes_cudnn_for_the_gradient_too():
  text = gpu_program(12, 48, 'bfloat16', gradient=True)
  assert 'cudnn$fmhaSoftmaxBackward(' in text
  # No array of scores, of 64 x 16 per image.
  assert '6x64x16x' not in text and '6x16x64x' not in text


def test_an_export_of_any_batch_size_takes_products():
  (b,) = jax.export.symbolic_shape('b')
  assert 'fmha' not in gpu_program(12, 48, 'bfloat16', batch=b)


@pytest.mark.parametrize('device', ['cpu', 'tpu'])
def test_bfloat16_keeps_large_scores(device, rng_seed):
  rng = np.random.default_rng(rng_seed)
  shapes = (2, 64, 8), (2, 16, 8), (2, 16, 24), (2, 64, 24)
  *args, g = (jnp.asarray(4 * rng.normal(size=s), jnp.bfloat16) for s in shapes)
  wide = [x.astype(jnp.float32) for x in args]
  with traced_for(device):
    ours, theirs = (jax.vjp(attend, *x)[1](g.astype(x[0].dtype)) for x in (args, wide))
  for a, b in zip(ours, theirs, strict=True):
    error = np.abs(np.asarray(a, np.float32) - b).max() / np.abs(b).max()
    assert error < 0.05
