"""Attention in chunks of images against softmax, with gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.ops.attention import MAX_SCORES, attend
from tests.gradients import assert_equal_gradients, assert_equal_values, scalar
from tests.platforms import traced_for


def plain(query, key, value):
  scores = jnp.einsum('bqc,bkc->bqk', query, key)
  return jnp.einsum('bqk,bkc->bqc', jax.nn.softmax(scores), value)


@pytest.mark.parametrize('device', ['cpu', 'tpu'])
@pytest.mark.parametrize(
  'max_scores, loops', [(MAX_SCORES, 0), (2 * 64 * 16, 1), (1, 1)]
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
