"""Frozen parameters, by name and in the training step."""

import dataclasses
import functools
from itertools import pairwise
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gan_jax import UserError
from gan_jax.config import parse_config
from gan_jax.config.optimizers import AdamConfig
from gan_jax.config.schedules import ConstantSchedule
from gan_jax.models import losses
from gan_jax.models.base import Batch, example_keys, variable_shapes
from gan_jax.models.biggan import BigGAN, BigGANInputs
from gan_jax.models.progan import ProGAN
from gan_jax.models.stylegan import StyleGAN
from gan_jax.nn.spectral_norm import init_spectral, spectral_scales
from gan_jax.runtime import sharding
from gan_jax.runtime.mesh import make_mesh
from gan_jax.storage.nested import flatten
from gan_jax.training.compile_step import compile_train_step
from gan_jax.training.freezing import (
  NONE,
  find_frozen,
  frozen_parameters,
  keep_ema,
  path_of,
)
from gan_jax.training.optimizers import make_optimizer
from gan_jax.training.stages import step_config
from gan_jax.training.step import StepConfig
from gan_jax.training.train_state import init_state
from tests.runs import tiny_config

BIGGAN = BigGAN(
  res=16, n_classes=3, dim_z=6, shared_dim=4, g_widths=(2, 1, 1), d_widths=(1, 2, 2),
  g_ch=4, d_ch=4, g_attention=(8,), d_attention=(8,),
)  # fmt: skip
GROWING = dict(res=16, n_classes=2, g_widths=(4,) * 4, d_widths=(4,) * 4)
GANS = {
  'biggan': BIGGAN,
  'deep': dataclasses.replace(BIGGAN, depth=2, dim_z=4, d_widths=(1, 1, 2)),
  'progan': ProGAN(**GROWING, dim_z=4, g_batch_norm=True, d_layer_norm=True),
  'stylegan': StyleGAN(**GROWING, dim_z=4, dim_w=4, mapping_layers=2, mapping_width=4),
}


def frozen_layers(family, network, *patterns):
  gan = GANS[family]
  paths = list(flatten(variable_shapes(gan)['gd'.index(network)]['params'], '/'))
  paths += ['other/bias']  # so that even all blocks are not all of the network
  found = find_frozen(network, patterns, paths, gan.blocks_of(network))
  return {path.rpartition('/')[0] for path in found}, set(paths) - found


@pytest.mark.parametrize(
  ('family', 'network', 'patterns', 'layers'),
  [
    ('biggan', 'd', '1', 'block0/conv1 block0/conv2 block0/conv_sc attention0'),
    ('biggan', 'd', 'embed block2/conv?', 'embed block2/conv1 block2/conv2'),
    ('biggan', 'g', '1', 'linear'),
    ('biggan', 'g', 'shared', 'shared'),
    ('deep', 'd', '1', 'stem block0_0/conv4 block0_1/conv1'),
    ('progan', 'd', '1', 'rgb16 conv16 conv16_norm conv16_down conv16_down_norm'),
    ('progan', 'g', '1', 'dense dense_norm conv4 conv4_norm rgb4'),
    ('stylegan', 'd', '2', 'rgb16 conv16 conv16_down rgb8 conv8 conv8_down'),
    ('stylegan', 'g', 'mapping/dense*', 'mapping/dense0 mapping/dense1'),
    (
      'stylegan',
      'g',
      '1',
      'synthesis synthesis/layer0 synthesis/layer0/style synthesis/conv4 '
      'synthesis/layer1 synthesis/layer1/style synthesis/rgb4',
    ),
  ],
)
def test_numbers_and_names(family, network, patterns, layers):
  found, _ = frozen_layers(family, network, *patterns.split())
  if family == 'deep':
    assert found >= set(layers.split())
    assert {x.split('_')[0].split('/')[0] for x in found} <= {
      *('stem', 'block0', 'attention0')
    }
  else:
    nested = {x for x in found if x.startswith('attention')}
    assert {*found - nested, *(x.split('/')[0] for x in nested)} == set(layers.split())


@pytest.mark.parametrize('family', GANS)
@pytest.mark.parametrize('network', ['g', 'd'])
def test_every_layer_is_in_one_block_or_has_a_name(family, network):
  blocks = GANS[family].blocks_of(network)
  found = [frozen_layers(family, network, str(n + 1)) for n in range(len(blocks))]
  for (few, _), (more, _) in pairwise(found):
    assert more > few
  named = {'other', 'shared', 'mapping'}
  if network == 'd':
    named = {'other', 'linear', 'embed', 'dense0', 'dense0_norm', 'dense1'}
  assert {path.split('/')[0] for path in found[-1][1]} <= named


@pytest.mark.parametrize(
  ('network', 'patterns', 'sentence'),
  [
    (
      'd',
      ['blok0'],
      "finetune.freeze_d names 'blok0', which no parameter of D matches (did you mean "
      "'block0' or 'block2' or 'block1'?): take a number of blocks from 1 to 3, or "
      'names and globs of attention0, block0, block1, block2, embed, linear, other.',
    ),
    (
      'd',
      ['4'],
      'finetune.freeze_d is 4, and D has 3 blocks: take a number from 1 to 3, or names '
      'such as attention0.',
    ),
    ('g', ['0'], 'finetune.freeze_g is 0, and G has 3 blocks'),
    ('g', ['1', 'mapping'], "finetune.freeze_g names 'mapping', which no parameter"),
    ('g', ['*'], 'finetune.freeze_g is *, and so freezes all of G: leave something'),
  ],
)
def test_parameters_that_do_not_exist_are_one_sentence(network, patterns, sentence):
  with pytest.raises(UserError) as error:
    frozen_layers('biggan', network, *patterns)
  assert str(error.value).startswith(sentence)


def test_the_keys_reach_the_step():
  raw = tiny_config(finetune__freeze_d=('1',), finetune__freeze_g=('shared',))
  config = parse_config(raw)
  fixed = step_config(config, config.stages[0], 1)
  assert fixed.g_frozen == {'shared/embedding'}
  assert 'block0/conv1/kernel' in fixed.d_frozen
  assert fixed.d_frozen == frozen_parameters(config)['d']
  plain = parse_config(tiny_config())
  assert frozen_parameters(plain) == {'g': NONE, 'd': NONE}


# The training step, with a GAN of two layers each, of which the first is frozen.


@dataclasses.dataclass(frozen=True)
class Layers:
  """Dense layers; D is spectrally normalized."""

  res: int = 4
  channels: int = 1
  n_classes: int = 0
  fake_labels: str = 'uniform'
  dim_z: int = 3
  ema_lags: ClassVar[bool] = False
  grows: ClassVar[bool] = False
  shares_batch_stats: ClassVar[bool] = False

  def init(self, key):
    draw = lambda i, *shape: jax.random.normal(jax.random.fold_in(key, i), shape)
    layer = lambda i, m, n: {'kernel': draw(i, m, n), 'bias': draw(i + 9, 1, n)}
    g = {'first': layer(0, 3, 8), 'last': layer(1, 8, 16)}
    d = {'first': layer(2, 16, 8), 'last': layer(3, 8, 1)}
    spectral = init_spectral(jax.random.fold_in(key, 4), d, ('kernel',))
    return {'params': g}, {'params': d, 'spectral': spectral}

  def draw_inputs(self, key, index, phase):
    z = jax.vmap(lambda k: jax.random.normal(k, (3,)))(example_keys(key, index))
    return BigGANInputs(z, jnp.zeros(index.shape, jnp.int32))

  def run(self, variables, x):
    params, spectral = variables['params'], variables.get('spectral', {})
    scales, spectral = spectral_scales(params, spectral, eps=1e-12, shared=True)
    for name, layer in params.items():
      scale = scales[name]['kernel'] if scales else 1
      x = jnp.tanh(x @ (layer['kernel'] * scale) + layer['bias'])
    return x, {**variables, 'spectral': spectral} if spectral else variables

  def d_loss(self, g, d, batch, draws, phase, augment):
    fake, g = self.run(g, draws.z)
    real = batch.images.reshape(len(batch.labels), 16) / 127.5 - 1
    scores, d = self.run(d, jnp.concatenate([real, fake]))
    on_real, on_fake = losses.logistic_d(*jnp.split(scores, [len(real)]))
    return on_real + on_fake, (g, d, {})

  def g_loss(self, g, d, draws, phase, augment):
    fake, g = self.run(g, draws.z)
    score, d = self.run(d, fake)
    return losses.logistic_g(score), (g, d, {})


FIRST = frozenset({'first/kernel', 'first/bias'})
ADAM = make_optimizer(AdamConfig(beta1=0.5, eps=1e-3, ortho=1e-2))


def start(tx):
  """A state whose moments are not 0, as those of a run that has trained already."""
  state = init_state(Layers(), tx, tx, jax.random.key(1))
  fill = lambda x: x + 0.5 if jnp.issubdtype(x.dtype, jnp.floating) else x + 3
  opt = {name: jax.tree.map(fill, getattr(state, name)) for name in ('g_opt', 'd_opt')}
  return dataclasses.replace(state, **opt)


@functools.cache
def trained(devices, mapped='jit', frozen=FIRST, tx=ADAM, steps=3, accum=2, d_steps=1):
  mesh, b = make_mesh(jax.devices()[:devices]), 8 // devices // accum
  config = StepConfig(
    Layers(), tx, tx, g_batch=b, d_steps=d_steps, g_frozen=frozen, d_frozen=frozen
  )
  run = compile_train_step(config, mesh, mapped)
  state = sharding.replicate(start(tx), mesh)
  rng = np.random.default_rng(0)
  phase = ConstantSchedule(batch=8, g_lr=0.05, d_lr=0.05, ema=0.9).phase_at(0, 4)
  metrics: dict = {}
  for _ in range(steps):
    images = rng.integers(0, 256, (d_steps * accum, devices, b, 4, 4, 1), np.uint8)
    batch = {'images': images, 'labels': np.zeros(images.shape[:3], np.int32)}
    batch = {name: x.swapaxes(0, 1) for name, x in batch.items()}
    batch = Batch(**sharding.shard_batch(batch, mesh))
    state, metrics = run(state, batch, jax.random.key(3), phase)
  return jax.tree.map(np.asarray, (state, metrics))


@pytest.mark.parametrize('mapped', ['jit', 'pmap'])
def test_what_is_frozen_keeps_its_bits_and_the_rest_trains(mapped, monkeypatch):
  monkeypatch.setattr(sharding, 'MIN_SHARDED_SIZE', 16)
  before, (after, _) = jax.tree.map(np.asarray, start(ADAM)), trained(4, mapped)
  old, new = (
    {path_of(path): x for path, x in jax.tree_util.tree_leaves_with_path(state)}
    for state in (before, after)
  )
  same = {path for path in old if np.array_equal(old[path], new[path])}
  floats = {path for path in old if old[path].dtype == np.float32}
  assert floats & same == {path for path in floats if '/first' in path}
  assert any(path.startswith('g_opt') for path in floats & same)
  assert {'d/spectral/first/u', 'd/spectral/first/sigma'} <= same
  assert {'ema/params/first/kernel', 'ema/params/first/bias'} <= same


def test_one_device_equals_four_and_pmap_equals_jit(monkeypatch):
  monkeypatch.setattr(sharding, 'MIN_SHARDED_SIZE', 16)
  four = trained(4)
  for others in (trained(1), trained(4, 'pmap')):
    for a, b in zip(jax.tree.leaves(others), jax.tree.leaves(four), strict=True):
      np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


def test_the_others_train_as_ever():
  """In a first update of D, at the same weights, they get the same gradient."""
  once = dict(tx=optax.identity(), steps=1, accum=1)
  (some, metrics), (all_, others) = (
    trained(1, frozen=frozen, **once) for frozen in (FIRST, NONE)
  )
  for name in ('kernel', 'bias'):
    ours, theirs = (x.d['params']['last'][name] for x in (some, all_))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
  assert not np.array_equal(*(x.d['params']['first']['bias'] for x in (some, all_)))
  assert metrics['d_grad'] < others['d_grad']  # of the others alone


def test_the_average_of_a_frozen_weight_comes_to_it():
  """From other EMA weights, as those of a run that goes on with frozen layers."""
  weights = {'first': {'kernel': jnp.asarray([0.1, 0.7])}}
  ema = {'first': {'kernel': jnp.asarray([0.1, 0.9])}}
  average = jax.tree.map(lambda e, x: 0.9 * e + 0.1 * x, ema, weights)
  kept = keep_ema(average, ema, weights, FIRST)['first']['kernel']
  assert kept[0] == weights['first']['kernel'][0]
  np.testing.assert_allclose(kept[1], 0.88, rtol=1e-6)
