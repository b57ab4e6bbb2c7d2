"""Growing: unused layers keep their values, devices change nothing, reals fade."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gan_jax import UserError
from gan_jax.config.optimizers import AdamConfig
from gan_jax.models import progressive
from gan_jax.models.base import Batch
from gan_jax.models.progan import ProGAN
from gan_jax.ops import resampling
from gan_jax.runtime import sharding
from gan_jax.runtime.mesh import make_mesh
from gan_jax.runtime.sharding import shard_batch
from gan_jax.training.compile_step import make_train_step
from gan_jax.training.optimizers import make_optimizer
from tests.models.growing import PROGAN, STYLEGAN, phase
from tests.runs import first_state

FAMILIES = pytest.mark.parametrize(
  'gan', [PROGAN, STYLEGAN], ids=lambda gan: type(gan).__name__
)
ADAM = make_optimizer(AdamConfig(beta2=0.99, tf_eps=True))


def trained(gan, devices, at, steps=2, batch=8, tx=ADAM, mapped='jit'):
  """The state after some iterations on images that depend on their index only."""
  mesh = make_mesh(jax.devices()[:devices])
  b = batch // devices
  run = make_train_step(gan, tx, tx, mesh, g_batch=b, mapped=mapped)
  state = sharding.replicate(first_state(gan, tx, tx, jax.random.key(1)), mesh)
  rng = np.random.default_rng(0)
  for _ in range(steps):
    shape = (1, devices, b, at.res, at.res, gan.channels)
    images = rng.integers(0, 256, shape, np.uint8).swapaxes(0, 1)
    labels = np.arange(batch, dtype=np.int32).reshape(devices, 1, b)
    labels %= max(gan.n_classes, 1)
    sharded = shard_batch(Batch(images, labels), mesh)
    state, metrics = run(state, sharded, jax.random.key(3), at)
  return state, metrics


@pytest.mark.slow
@FAMILIES
def test_one_device_equals_four(gan):
  # With 2 images per device, the groups of 4 span devices.
  # Plain gradients: Adam would scale up those that are zero except for rounding.
  at = phase(8, 0.25, 1e-2)
  one, four = (trained(gan, n, at, tx=optax.identity())[0] for n in (1, 4))
  for (path, a), b in zip(
    jax.tree_util.tree_leaves_with_path(four), jax.tree.leaves(one), strict=True
  ):
    worst = np.max(np.abs(np.asarray(a) - np.asarray(b)), initial=0)
    assert worst <= 1e-5 * max(np.max(np.abs(b)), 1), jax.tree_util.keystr(path)


@pytest.mark.slow
@FAMILIES
def test_only_layers_in_use_learn(gan):
  before = first_state(gan, *[make_optimizer(AdamConfig())] * 2, jax.random.key(1))
  for at, unused in (
    (phase(4, 1.0, 1e-3), ('rgb8', 'rgb16', 'conv8', 'conv16')),
    (phase(8, 0.5, 1e-3), ('rgb16', 'conv16')),
    (phase(16, 1.0, 1e-3), ('rgb4', 'rgb8')),  # the lower resolution has faded out
  ):
    after, _ = trained(gan, 1, at, steps=1)
    for side in ('g', 'd'):
      old = jax.tree_util.tree_leaves_with_path(getattr(before, side)['params'])
      new = jax.tree.leaves(getattr(after, side)['params'])
      opt = jax.tree.leaves(getattr(after, f'{side}_opt').nu)
      for (path, a), b, nu in zip(old, new, opt, strict=True):
        name = jax.tree_util.keystr(path, simple=True, separator='/')
        if name.split('/')[-2].removesuffix('_up').removesuffix('_down') in unused:
          np.testing.assert_array_equal(a, b, name)
          assert not np.any(nu), name  # gradients are exactly zero
        elif name.endswith('kernel') and 'style' not in name and 'embed' not in name:
          assert np.any(np.asarray(a) != np.asarray(b)), (name, at.res)


def test_reals_fade_and_must_have_the_resolution_of_the_phase():
  images = np.arange(128, dtype=np.uint8).reshape(2, 8, 8, 1)
  batch = Batch(jnp.asarray(images), None)
  sharp = progressive.blend_reals(batch, phase(8, 1.0), jnp.float32)
  np.testing.assert_allclose(sharp, images / 127.5 - 1, atol=1e-6)
  half = progressive.blend_reals(batch, phase(8, 0.5), jnp.float32)
  boxes = resampling.upsample(resampling.downsample(sharp))
  np.testing.assert_allclose(half, (sharp + boxes) / 2, atol=1e-6)
  with pytest.raises(UserError, match='images of 8x8, but training has come to 16x16'):
    progressive.blend_reals(batch, phase(16), jnp.float32)


@FAMILIES
def test_images_of_every_resolution(gan):
  g, d = jax.eval_shape(gan.init, jax.random.key(0))
  half = jax.eval_shape(
    dataclasses.replace(gan, dtype='bfloat16').init, jax.random.key(0)
  )
  assert jax.tree.map(jnp.shape, half) == jax.tree.map(jnp.shape, (g, d))
  z, labels = jnp.zeros((2, 6)), jnp.zeros(2, jnp.int32)
  for res in (4, 8, 16):
    out = jax.eval_shape(lambda g, res=res: gan.generate(g, z, labels, res=res), g)
    assert out.shape == (2, res, res, 3) and out.dtype == jnp.float32


@pytest.mark.parametrize(
  'fields, complaint',
  [
    (dict(res=24), 'res is 24: growing takes powers of two'),
    (dict(res=16, g_widths=(4, 4)), 'g_widths has 2 entries'),
  ],
)
def test_resolutions_and_widths_without_a_network_are_errors(fields, complaint):
  with pytest.raises(UserError, match=complaint):
    ProGAN(**fields)
