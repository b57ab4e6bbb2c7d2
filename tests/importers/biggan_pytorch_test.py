"""BigGAN-PyTorch: model sizes and settings."""

import jax
import pytest

from gan_jax import importers
from gan_jax.importers.biggan_pytorch import biggan_training_config
from gan_jax.importers.biggan_settings import infer_settings
from gan_jax.storage import weights

COUNTS = {  # resolution, channels, dim_z; parameters of the original G and D
  'BigGAN-128': (128, 96, 120, 70_433_988, 87_982_370),
  'BigGAN-256': (256, 96, 140, 82_235_844, 99_225_890),
  'deep-128': (128, 128, 128, 50_244_484, 34_590_210),
}  # fmt: skip


@pytest.mark.parametrize('name', COUNTS)
def test_full_size_models_have_the_published_number_of_parameters(name):
  res, ch, dim_z, *want = COUNTS[name]
  kwargs = dict(resolution=res, G_ch=ch, D_ch=ch, dim_z=dim_z)
  kwargs = dict(kwargs, n_classes=1000, hier=True, G_shared=True, shared_dim=128)
  gan = importers.biggan_from_kwargs(kwargs, kwargs, deep='deep' in name)
  sides = jax.eval_shape(gan.init, jax.random.key(0))
  got = [sum(x.size for x in jax.tree.leaves(side['params'])) for side in sides]
  assert got == want


def test_settings_are_inferred_from_the_weights(checkpoints):
  folder = checkpoints / 'exp_zip'
  inferred = infer_settings(
    {side: weights.read_arrays(folder / f'{side}.pth') for side in 'GD'}
  )
  saved = weights.read_tree(folder / 'state_dict.pth')['config']
  for name, value in saved.items():
    assert inferred.get(name, value) == value, name
  assert {
    'resolution',
    'n_classes',
    'dim_z',
    'hier',
    'G_attn',
    'D_attn',
  } <= inferred.keys()


def test_accumulations_of_g_and_d_are_read_apart():
  gan = importers.biggan_from_kwargs({'n_classes': 5}, {}, deep=False)
  settings = dict(batch_size=3, num_D_steps=2, num_D_accumulations=1, adam_eps=1e-8)
  settings |= dict(num_G_accumulations=3, G_batch_size=5)
  raw, images = biggan_training_config(gan, settings, step=7)
  assert raw['schedule']['batch'] == 3 and images == 7 * 2 * 3
  assert (raw['train']['accum'], raw['train']['g_accum']) == (1, 3)
  assert raw['train']['g_batch'] == 5 * 3
  raw, _ = biggan_training_config(gan, settings | dict(num_G_accumulations=1), step=7)
  assert raw['train']['g_accum'] == 0 and raw['train']['g_batch'] == 5
