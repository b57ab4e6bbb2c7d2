"""Variants of the configs for the tables of the papers."""

import dataclasses
import importlib

import pytest

from gan_jax.config import parse_config


def changed(name, variant, other=''):
  """Keys of a variant that differ from those of another, by section."""
  module = importlib.import_module(f'configs.{name}')
  configs = (parse_config(module.get_config(v).to_dict()) for v in (variant, other))
  ours, theirs = (config.to_dict() for config in configs)
  return {
    f'{section}.{key}': value
    for section, keys in ours.items()
    for key, value in keys.items()
    if theirs[section][key] != value
  }


def model(**keys):
  return {f'model.{key}': value for key, value in keys.items()}


@pytest.mark.parametrize(
  'variant, before, change',
  [
    # Each row of table 1 changes what the paper says of it.
    ('table1_e', '', model(mixing=0.0)),
    ('table1_d', 'table1_e', model(noise=False)),
    ('table1_c', 'table1_d', model(const=False)),
    (
      'table1_b',
      'table1_c',
      model(
        mapping_layers=0,
        styles=False,
        g_norm=True,
        instance_norm=False,
        truncation_psi=1.0,
      ),
    ),
    ('table4_traditional8', 'table1_b', model(mapping_layers=8)),
    ('table2_50', '', model(mixing=0.5)),
    ('table2_100', '', model(mixing=1.0)),
    *[(f'table4_style{n}', '', model(mapping_layers=n)) for n in (0, 1, 2)],
  ],
)
def test_rows_of_stylegan(variant, before, change):
  assert changed('stylegan_ffhq', variant, before) == change


@pytest.mark.parametrize(
  'variant, before, change',
  [
    (
      'table1_b',
      'table1_a',
      {'schedule.resolutions': (4, 8, 16, 32, 64, 128)},
    ),
    (
      'table1_c',
      'table1_b',
      {'schedule.batch': (16,), 'schedule.ema': 0.999**5},
    ),
    (
      'table1_d',
      'table1_c',
      {
        **model(dim_z=512, normalize_z=True, g_batch_norm=False, g_relu=False),
        **model(g_tanh=False, d_layer_norm=False, drift=0.001),
        'schedule.ema': 0.999,
        'train.d_steps': 1,
        'g_adam.beta2': 0.99,
        'd_adam.beta2': 0.99,
      },
    ),
    ('table1_e_star', 'table1_d', model(mbdisc_kernels=100)),
    ('table1_e', 'table1_d', model(mbstd_group=16)),
    (
      'table1_f',
      'table1_e',
      {**model(equalized=True), 'schedule.g_lr': (1e-3,), 'schedule.d_lr': (1e-3,)},
    ),
    (
      'paper',
      'table1_f',
      {
        **model(g_norm=True),
        'schedule.batch': (16,) * 6,
        'schedule.g_lr': (1e-3,) * 6,
        'schedule.d_lr': (1e-3,) * 6,
      },
    ),
  ],
)
def test_rows_of_progan(variant, before, change):
  assert changed('progan_celeba', variant, before) == change


def test_a_growing_gan_takes_several_d_steps():
  module = importlib.import_module('configs.progan_celeba')
  config = parse_config(module.get_config('table1_b').to_dict())
  stage = config.stages[-1]
  assert config.images_per_step(stage) == 5 * 64
  assert config.shape(stage, n_devices=4) == (5, 16, 16)
  accumulated = dataclasses.replace(config.train, accum=2)
  config = dataclasses.replace(config, train=accumulated)
  assert config.shape(stage, n_devices=4) == (10, 8, 8)
