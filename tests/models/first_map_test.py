"""Models whose first feature map is not 4x4: shapes, and rows against columns."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gan_jax import UserError
from gan_jax.models.base import Batch, variable_shapes
from gan_jax.models.biggan import BigGAN
from gan_jax.models.progan import ProGAN
from gan_jax.models.progressive import blend_reals
from gan_jax.models.stylegan import StyleGAN
from gan_jax.runtime.mesh import make_mesh
from gan_jax.training.compile_step import compile_train_step
from gan_jax.training.step import StepConfig
from gan_jax.training.train_state import init_state
from tests.models.growing import phase

WIDTHS = (5, 4, 3)  # at 1x1, 4x4, 8x8
GROWING = dict(res=8, dim_z=6, g_widths=WIDTHS, d_widths=WIDTHS, mbstd_group=2)
PROGAN = ProGAN(n_classes=3, **GROWING)
STYLEGAN = StyleGAN(dim_w=7, mapping_layers=1, **GROWING)
BIGGAN = BigGAN(
  **dict(res=16, dim_z=6, g_ch=8, d_ch=8, g_attention=(8,), d_attention=(4,)),
  **dict(g_widths=(2, 1, 1), d_widths=(1, 1, 2)),
)
HOLDERS = {  # of the pixels of a map; in D, the features of the first map
  ProGAN: ("[0]['params']['dense']['kernel']", "[1]['params']['dense0']['kernel']"),
  StyleGAN: ("['const']", "['noise']", "[1]['params']['dense0']['kernel']"),
  BigGAN: ("[0]['params']['linear']", "[0]['spectral']['linear']['u']"),
}
MESH = make_mesh(jax.devices()[:1])
ALL = pytest.mark.parametrize(
  'gan', [PROGAN, STYLEGAN, BIGGAN], ids=lambda gan: type(gan).__name__
)


@ALL
def test_the_first_map_decides_the_shape_of_all_maps(gan):
  long = dataclasses.replace(gan, first_map=(3, 5))
  assert long.size() == (3 * gan.res // 4, 5 * gan.res // 4)
  assert long.size(4) == (3, 5) and gan.size() == (gan.res, gan.res)
  square, other = (
    {jax.tree_util.keystr(path): x.shape for path, x in leaves}
    for leaves in map(
      jax.tree_util.tree_leaves_with_path, map(variable_shapes, (gan, long))
    )
  )
  assert square.keys() == other.keys()
  # Only what holds whole maps has another size: 15 in place of 16 pixels.
  changed = {k for k in square if square[k] != other[k]}
  for key in changed:
    assert math.prod(other[key]) * 16 == math.prod(square[key]) * 15
  assert changed == {key for key in square if any(x in key for x in HOLDERS[type(gan)])}


def turned(x, first_map):
  """A parameter of a model, for the model whose rows are this one's columns."""
  h, w = first_map
  if x.ndim == 4:  # kernels; constants and noise have one example
    return x.swapaxes(1, 2) if x.shape[0] == 1 != x.shape[1] else x.swapaxes(0, 1)
  for axis, n in enumerate(x.shape):
    if n in (h * w * 4, h * w * 16):  # all pixels of the first map
      split = (*x.shape[:axis], h, w, n // (h * w), *x.shape[axis + 1 :])
      return x.reshape(split).swapaxes(axis, axis + 1).reshape(x.shape)
  return x


@ALL
def test_exchanging_rows_and_columns_transposes_everything(gan, rng_seed):
  """G(3x5) with transposed parameters draws the transposed images of G(5x3)."""
  wide = dataclasses.replace(gan, first_map=(3, 5))
  high = dataclasses.replace(gan, first_map=(5, 3))
  shapes, rng = variable_shapes(wide), np.random.default_rng(rng_seed)
  g, d = jax.tree.map(lambda x: rng.normal(size=x.shape).astype('f') / 2, shapes)
  g |= {k: jax.tree.map(np.abs, v) for k, v in g.items() if k == 'batch_stats'}
  g_t, d_t = jax.tree.map(lambda x: turned(x, (3, 5)), (g, d))
  assert jax.tree.map(np.shape, (g_t, d_t)) == jax.tree.map(
    lambda x: x.shape, variable_shapes(high)
  )
  z = rng.normal(size=(2, gan.dim_z)).astype('f')
  labels = np.zeros(2, np.int32)
  images, images_t = (
    jax.jit(model.generate)(v, z, labels) for model, v in ((wide, g), (high, g_t))
  )
  assert images.shape == (2, *wide.size(), 3) and np.std(images) > 0.01
  np.testing.assert_allclose(images_t, images.swapaxes(1, 2), rtol=2e-4, atol=2e-4)

  def scores(model, variables, images):
    if isinstance(model, BigGAN):
      return model.run_discriminator(variables, images, labels)[0]
    return model.discriminator.apply(variables, images, gan.res, 0.5)

  def on_a_mesh(model, variables, images):
    spec = jax.sharding.PartitionSpec()
    f = jax.shard_map(
      lambda v, x: scores(model, v, x),
      mesh=MESH,
      **dict(in_specs=(spec, spec), out_specs=spec, check_vma=False),
    )
    return jax.jit(f)(variables, images)

  x = rng.normal(size=images.shape).astype('f')
  found = on_a_mesh(high, d_t, jnp.asarray(x.swapaxes(1, 2)))
  np.testing.assert_allclose(found, on_a_mesh(wide, d, x), rtol=1e-3, atol=1e-3)


def test_a_step_takes_images_of_the_shape_and_no_others():
  gan = dataclasses.replace(STYLEGAN, first_map=(4, 5))
  tx = optax.sgd(0.1)
  step = compile_train_step(StepConfig(gan, tx, tx, g_batch=2), MESH)
  make = lambda: (init_state(gan, tx, tx, jax.random.key(1)), jax.random.key(0))
  (state, key), shape = jax.eval_shape(make), jax.ShapeDtypeStruct
  labels = shape((1, 1, 2), np.int32)
  batch = Batch(shape((1, 1, 2, 4, 5, 3), np.uint8), labels)
  step.lower(state, batch, key, phase(4, 1.0, 0.1))
  turned = Batch(np.zeros((2, 10, 8, 3), np.uint8), np.zeros(2, np.int32))
  with pytest.raises(UserError, match='of 8x10, but training has come to 10x8: take'):
    blend_reals(turned, phase(8, 0.5), np.float32, gan.first_map)


@ALL
def test_impossible_first_maps(gan):
  for first_map, message in (
    ((4,), 'model.first_map has 1 entries: it needs two, the height and the width'),
    ((3, 0), 'model.first_map contains 0: entries must be at least 1'),
    ((3, 33), 'model.first_map contains 33: entries must be at most 32'),
  ):
    with pytest.raises(UserError, match=message):
      dataclasses.replace(gan, first_map=first_map)
