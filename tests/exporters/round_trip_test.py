"""What is exported and imported again is the same, bit for bit."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from gan_jax import BigGAN, ProGAN, StyleGAN, UserError
from gan_jax.config import parse_config
from gan_jax.exporters import __main__ as cli
from gan_jax.exporters.official import official_files
from gan_jax.exporters.saved_run import SavedRun
from gan_jax.importers.biggan_names import biggan_state
from gan_jax.importers.huggingface import huggingface_gan
from gan_jax.importers.nvidia import progressive_state
from gan_jax.importers.nvidia_settings import official_kwargs
from gan_jax.importers.sources import read_published
from gan_jax.models.base import variable_shapes
from gan_jax.sampling.export import model_section
from gan_jax.storage import weights
from gan_jax.training.optimizers import make_optimizer
from gan_jax.training.train_state import flatten_kernels

CHECKPOINTS = Path(__file__).parents[1] / 'golden' / 'biggan_metrics' / 'checkpoints'
SMALL = dict(g_widths=(8, 8, 6, 3), d_widths=(8, 8, 6, 3))
MODELS = {
  'biggan': BigGAN(
    32, 5, dim_z=24, shared_dim=8, g_ch=4, d_ch=2, g_attention=(16,), sn_eps=1e-6
  ),
  'unshared': BigGAN(
    32, 3, dim_z=6, shared_dim=0, hier=False, g_ch=2, d_ch=4, d_wide=False, bn_ddof=0,
    d_attention=(16, 8, 8, 8), g_sn_vectors=2, d_sn_vectors=3, split_d=True,
  ),
  'deep': BigGAN(
    32, 4, dim_z=6, shared_dim=5, g_ch=4, d_ch=4, depth=2, g_attention=(16,),
    d_attention=(16, 8, 8),
  ),
  'progan': ProGAN(16, 3, dim_z=7, d_fused=False, g_relu=True, channels=1, **SMALL),
  'stylegan': StyleGAN(
    128, 4, dim_z=6, dim_w=5, mapping_layers=2, mapping_width=3, mixing=0.0, d_blur=(),
    g_widths=(8, 8, 8, 8, 4, 2, 1), d_widths=(4, 4, 4, 4, 4, 3, 1), mbstd_features=2,
  ),
  'traditional': StyleGAN(
    16, mapping_layers=0, dim_z=6, dim_w=6, styles=False, const=False, noise=False,
    instance_norm=False, g_norm=True, **SMALL,
  ),
}  # fmt: skip


def with_values(rng, like):
  return jax.tree.map(lambda x: rng.standard_normal(x.shape).astype(np.float32), like)


def config_of(gan):
  if isinstance(gan, BigGAN):
    schedule = {'batch': 6, 'g_lr': 1e-4, 'ema_start': 24}
    train = {'images': 100, 'd_steps': 2, 'accum': 3, 'g_accum': 1, 'g_batch': 8}
  else:
    sizes = [4 << i for i in range(gan.res.bit_length() - 2)]
    schedule = {'resolutions': sizes, 'batch': [8], 'stabilise': 10, 'fade': 10}
    train = {'images': 100}
  adam = {'beta1': 0.5, 'eps': 1e-6, 'ortho': 1e-4}
  sections = {'model': model_section(gan), 'schedule': schedule, 'train': train}
  log = {'metrics_every': 8, 'grid_every': 8, 'checkpoint_every': 8}
  return parse_config(
    {**sections, 'g_adam': adam, 'data': {'name': 'cifar10'}, 'log': log}
  )


def run_of(gan, rng, images=36):
  like_g, like_d = variable_shapes(gan)
  config = config_of(gan)
  init = lambda adam, like: jax.eval_shape(
    lambda p: make_optimizer(adam).init(flatten_kernels(p)), like['params']
  )
  states = (
    with_values(rng, x)
    for x in (init(config.g_adam, like_g), init(config.d_adam, like_d))
  )
  g, ema, d = (with_values(rng, x) for x in (like_g, like_g, like_d))
  return SavedRun(config, 3, images, g, ema, d, *states)


def exported(run, out, file_format):
  files = official_files(run)
  written = cli.write_files(files, out, file_format)
  is_biggan = isinstance(run.config.gan, BigGAN)
  path = out if is_biggan else next(p for p in written if p.suffix != '.json')
  return read_published(path)


def assert_equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize('name', MODELS)
def test_import_is_the_inverse_of_export(tmp_path, rng_seed, name):
  gan, rng = MODELS[name], np.random.default_rng(rng_seed)
  run = run_of(gan, rng)
  formats = ('pth', 'npz', 'safetensors')[not isinstance(gan, BigGAN) :]
  for file_format in formats:
    got = exported(run, tmp_path / file_format, file_format)
    assert got.gan == gan
    for side in ('g', 'ema', 'd'):
      assert_equal(getattr(got, side), getattr(run, side))
  raw, images = got.training_config(got.gan)
  if not isinstance(gan, BigGAN):
    stages = 1.6 - (raw['schedule']['resolutions'][0] == 8)  # 36 images of 20 each
    assert images == 1_200_000 * int(stages) + 960_000
    return
  assert images == 3 * 2 * 6
  config = parse_config(raw)
  for section in ('schedule', 'g_adam', 'd_adam'):
    want = dataclasses.asdict(getattr(run.config, section))
    if section == 'd_adam':
      want['eps'] = 1e-6  # BigGAN-PyTorch has one for both
    assert dataclasses.asdict(getattr(config, section)) == want
  train, want = config.train, run.config.train
  for key in ('d_steps', 'accum', 'g_accum', 'g_batch'):
    assert getattr(train, key) == getattr(want, key), key


def test_optimizers_are_numbered_as_the_original_does(tmp_path, rng_seed):
  rng = np.random.default_rng(rng_seed)
  run = run_of(MODELS['biggan'], rng)
  count = np.int32(7)
  moved = {}
  for side in ('g_opt', 'd_opt'):
    *rest, adam = getattr(run, side) if side == 'g_opt' else (getattr(run, side),)
    adam = adam._replace(count=count)
    moved[side] = (*rest, adam) if rest else adam
  got = exported(run._replace(**moved), tmp_path, 'pth')
  for side, moments in (('g', got.g_moments), ('d', got.d_moments)):
    adam = moved[f'{side}_opt'][-1] if side == 'g' else moved[f'{side}_opt']
    assert moments.steps == 7
    assert_equal(flatten_kernels(moments.second), adam.nu)
    if side == 'g':
      assert_equal(flatten_kernels(moments.first), adam.mu)
    else:  # beta1 is 0
      assert not any(x.any() for x in jax.tree.leaves(moments.first))


def test_published_files_are_written_as_they_were():
  """The same names in the same order, shapes and bits as BigGAN-PyTorch's."""
  source = read_published(CHECKPOINTS / 'exp_zip')
  for role, variables in (('G', source.g), ('G_ema', source.ema), ('D', source.d)):
    want = weights.read_tree(CHECKPOINTS / 'exp_zip' / f'{role}.pth')
    got = biggan_state(variables, source.gan)
    assert list(got) == list(want)
    for name, array in want.items():
      assert got[name].shape == array.shape, name
      np.testing.assert_array_equal(got[name], array)


@pytest.mark.parametrize('family', ['progan', 'stylegan'])
def test_published_networks_are_written_as_they_were(family):
  """The same names, shapes and bits as the variables in NVIDIA's pickles."""
  path = CHECKPOINTS.parents[1] / 'progan_stylegan' / f'{family}_tiny.pkl'
  source, networks = read_published(path), weights.read_network_pickle(path)
  sides = (('G', source.g), ('D', source.d), ('G', source.ema))
  kwargs = dict(zip('GD', official_kwargs(source.gan), strict=True))
  for network, (side, variables) in zip(networks, sides, strict=True):
    lod = float(network.variables['lod'])
    got = progressive_state(variables, source.gan, side, kwargs[side], lod)
    assert got.keys() == network.variables.keys()
    for name, array in network.variables.items():
      assert got[name].shape == array.shape, name
      np.testing.assert_array_equal(got[name], array)


@pytest.mark.parametrize('file_format', ['pth', 'npz', 'safetensors'])
def test_huggingface_weights(tmp_path, rng_seed, file_format):
  config = json.loads((CHECKPOINTS / 'hf_zip' / 'config.json').read_text())
  gan = huggingface_gan(config)
  run = run_of(gan, np.random.default_rng(rng_seed))
  got = exported(run, tmp_path, file_format)
  assert json.loads((tmp_path / 'config.json').read_text()) == config
  assert got.gan == gan
  assert_equal(got.ema, run.ema)


@pytest.mark.parametrize(
  'gan, sentence',
  [
    (
      BigGAN(32, 5, dim_z=24, g_widths=(4, 4, 2, 2)),
      '4, 4, 2, 2., but .* the published widths',
    ),
    (BigGAN(32, dim_z=24), 'model.n_classes is 0'),
    (BigGAN(16, 5, dim_z=6, g_widths=(1,) * 3, d_widths=(1,)), 'model.res is 16'),
    (BigGAN(32, 5, dim_z=24, channels=1), 'model.channels is 1'),
    (
      BigGAN(32, 5, dim_z=24, first_map=(3, 4)),
      r'model.first_map is \(3, 4\), but BigGAN-PyTorch can .* with \(4, 4\): gan_jax',
    ),
    (
      ProGAN(16, first_map=(4, 6), **SMALL),
      r"model.first_map is \(4, 6\), but NVIDIA's ProGAN .* with \(4, 4\)",
    ),
    (BigGAN(32, 5, dim_z=24, d_attention=(8,)), 'model.d_attention is .8,.'),
    (ProGAN(16, g_tanh=True, **SMALL), "model.g_tanh is True, but NVIDIA's ProGAN"),
    (ProGAN(16, g_widths=(8, 4, 8, 4)), 'model.g_widths is .8, 4, 8, 4.'),
  ],
)
def test_networks_that_the_original_cannot_build(gan, sentence):
  run = SavedRun(config_of(gan), 0, 0, {}, {}, {}, None, None)
  with pytest.raises(UserError, match=sentence):
    official_files(run)


def test_an_epsilon_that_the_original_has_not_is_a_note(rng_seed):
  gan = dataclasses.replace(MODELS['biggan'], rgb_bn_eps=1e-4)
  files = official_files(run_of(gan, np.random.default_rng(rng_seed)))
  assert files.notes[0].startswith('model.rgb_bn_eps is 0.0001, and BigGAN-PyTorch')


def test_a_generator_alone(tmp_path, rng_seed):
  rng = np.random.default_rng(rng_seed)
  for name in ('biggan', 'stylegan'):
    run = run_of(MODELS[name], rng)._replace(d=None, g_opt=None, d_opt=None)
    assert 'the checkpoint has no discriminator' in official_files(run).notes
    got = exported(run, tmp_path / name, 'npz')
    assert got.d is None
    assert_equal(got.ema, run.ema)
