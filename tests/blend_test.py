"""Blending by resolution: which weights come from which run, and the images."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import BigGAN, ProGAN, StyleGAN, UserError
from gan_jax import blend as cli
from gan_jax.importers.sources import read_published
from gan_jax.models.base import variable_shapes

GOLDEN = Path(__file__).parent / 'golden' / 'progan_stylegan'
GANS = {
  'progan': ProGAN(16, g_widths=(2,) * 4, d_widths=(2,) * 4),
  'stylegan': StyleGAN(16, g_widths=(2,) * 4, d_widths=(2,) * 4, dim_w=3, dim_z=3),
  'biggan': BigGAN(32, 3, dim_z=6, shared_dim=4, g_ch=2, g_attention=(16,), hier=False),
  'deep': BigGAN(32, 3, dim_z=6, shared_dim=4, g_ch=4, depth=2),
}


def zeros_and_ones(gan):
  like, _ = variable_shapes(gan)
  return [
    jax.tree.map(lambda x, v=v: np.full(x.shape, v, np.float32), like) for v in (0, 1)
  ]


def shares(gan, res, ramp=0):
  """Path -> share of b in the variable."""
  mixed = cli.blend(gan, *zeros_and_ones(gan), res, ramp)
  leaves = jax.tree_util.tree_leaves_with_path(mixed)
  name = lambda path: jax.tree_util.keystr(path, simple=True, separator='/')
  assert all((x == x.reshape(-1)[0]).all() for _, x in leaves)
  return {name(path): float(x.reshape(-1)[0]) for path, x in leaves}


@pytest.mark.parametrize('name', GANS)
def test_above_all_layers_is_a_and_below_all_is_the_synthesis_of_b(name):
  gan = GANS[name]
  assert not any(shares(gan, 2 * gan.res).values())
  of_a = {path.split('/')[1] for path, s in shares(gan, 4).items() if s == 0}
  want = {'stylegan': {'mapping', 'w_avg'}, 'progan': set()}
  assert of_a == want.get(name, {'shared'})


def test_layers_by_their_resolution():
  stylegan = shares(GANS['stylegan'], 16)
  of_b = {path for path, share in stylegan.items() if share}
  layers = {path.split('/')[2] for path in of_b if path.startswith('params/')}
  assert layers == {'conv16', 'conv16_up', 'rgb16', 'layer4', 'layer5'}
  assert {path for path in of_b if path.startswith('noise/')} == {
    'noise/layer4',
    'noise/layer5',
  }
  biggan = shares(GANS['biggan'], 16)
  layers = {path.split('/')[1] for path, share in biggan.items() if share}
  assert layers == {'block1', 'attention1', 'block2', 'norm', 'rgb'}
  assert {path.split('/')[0] for path, share in biggan.items() if share} == {
    'params',
    'batch_stats',
    'spectral',
  }
  deep = shares(GANS['deep'], 16)  # its even blocks keep the resolution
  layers = {path.split('/')[1] for path, share in deep.items() if share}
  assert layers == {'block3', 'block4', 'block5', 'norm', 'rgb'}


def test_a_ramp_is_linear_in_the_number_of_doublings():
  at = shares(GANS['progan'], 4, ramp=2)
  by_size = [at[f'params/{name}/kernel'] for name in ('conv4', 'conv8', 'conv16')]
  np.testing.assert_allclose(by_size, [1 / 3, 2 / 3, 1], rtol=1e-6)
  assert at['params/conv8_up/bias'] == at['params/conv8/kernel']


def test_images_of_a_blended_stylegan():
  """Below all layers, the images are those of B's synthesis of A's w."""
  source = read_published(GOLDEN / 'stylegan_tiny.pkl')
  gan, a = source.gan, source.ema
  b = jax.tree.map(lambda x: np.asarray(x) * np.float32(1.25), a)
  z = np.random.default_rng(0).standard_normal((2, gan.dim_z)).astype(np.float32)
  generate = jax.jit(lambda g: gan.generate(g, z, jnp.zeros(2, jnp.int32), 0.7))
  np.testing.assert_array_equal(generate(cli.blend(gan, a, b, 32)), generate(a))
  from_b = {**b, 'moving': a['moving']}
  params = {**b['params'], 'mapping': a['params']['mapping']}
  want = generate({**from_b, 'params': params})
  np.testing.assert_array_equal(generate(cli.blend(gan, a, b, 4)), want)
  half = generate(cli.blend(gan, a, b, 8))
  assert np.abs(half - want).max() > 1e-3 < np.abs(half - generate(a)).max()


def test_the_command_saves_a_generator(tmp_path, digits_run):
  import gan_jax

  out = tmp_path / 'blended'
  cli.main([str(digits_run), str(digits_run), '--res=8', f'--out={out}'])
  assert json.loads((out / 'blend.json').read_text())['res'] == 8
  want, got = gan_jax.load(digits_run), gan_jax.load(out)
  jax.tree.map(np.testing.assert_array_equal, got.variables, want.variables)
  assert got.identity == want.identity
  with pytest.raises(UserError, match='holds files already'):
    cli.main([str(digits_run), str(digits_run), '--res=8', f'--out={out}'])
  with pytest.raises(
    UserError, match='--res=12: the generator has feature maps of 4, 8'
  ):
    cli.main([str(digits_run), str(digits_run), '--res=12', f'--out={tmp_path / "x"}'])


def test_other_architectures():
  gan = GANS['stylegan']
  check = lambda b: cli.check_same_architecture(gan, b, 'A', 'B')
  check(dataclasses.replace(gan, r1_gamma=1.0, d_relu=True, mixing=0.0))
  check(dataclasses.replace(gan, dtype='bfloat16', bfloat16_from=8))
  with pytest.raises(UserError, match='A is a StyleGAN and B a ProGAN'):
    check(GANS['progan'])
  with pytest.raises(UserError, match='model.dim_w is 3 in A and 4 in B'):
    check(dataclasses.replace(gan, dim_w=4))
  with pytest.raises(UserError, match=r'first_map is \(4, 4\) in A and \(3, 4\) in B'):
    check(dataclasses.replace(gan, first_map=(3, 4)))
