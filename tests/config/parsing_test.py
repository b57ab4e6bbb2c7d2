"""Mistakes in a config are one sentence that names the key."""

import json

import pytest

from gan_jax import UserError
from gan_jax.config import load_raw_config as config_of
from gan_jax.config import parse_config


def config(name, variant=''):
  return config_of(f'configs/{name}.py:{variant}' if variant else f'configs/{name}.py')


@pytest.mark.parametrize(
  'section, key, value, words',
  [
    ('model', 'chh', 3, "no key 'chh'"),
    ('model', 'g_chs', 3, "did you mean 'g_ch'"),
    ('model', 'family', 'bigan', "did you mean 'biggan'"),
    ('model', 'res', '32', 'int is needed'),
    ('model', 'hier', 1, 'bool is needed'),
    ('model', 'g_widths', (1.5, 2), r'g_widths\[0\] is 1.5: int is needed'),
    ('model', 'g_widths', 2, 'g_widths is 2: a tuple of ints'),
    ('schedule', 'batch', 0, 'schedule.batch is 0'),
    ('train', 'mapped', 'xmap', 'pmap and jit'),
    ('score', 'n', -1, 'score.n is -1'),
    ('score', 'best', 2, "score.best=2 and score.best_by=''"),
    ('schedule', 'lr', 1e-3, "no key 'lr'"),
    ('optimizer', 'lr', 1e-3, 'no section'),
    ('collapse', 'action', 'exit', 'allowed are warn, stop and rollback'),
    ('log', 'trackers', ('wandb', 'neptune'), "contains 'neptune': allowed are tensor"),
    ('collapse', 'lr_factor', 0.0, 'collapse.lr_factor is 0.0'),
    ('watch', 'respond', 'warn', "no section 'watch'"),
    ('log', 'sheet_every', 2, 'log.sheet_every and log.grid_every are both set'),
  ],
)
def test_mistakes(section, key, value, words):
  values = config('biggan_digits')
  values.setdefault(section, {})[key] = value
  with pytest.raises(UserError, match=words):
    parse_config(values)


def test_a_missing_key_and_a_batch_that_does_not_divide():
  values = config('biggan_digits')
  del values['train']['images']
  with pytest.raises(UserError, match='train.images is missing'):
    parse_config(values)
  values = config('biggan_digits')
  values['train'] |= dict(accum=4)
  values['schedule'] |= dict(batch=20)
  read = parse_config(values)
  with pytest.raises(UserError, match='schedule.batch=20 .* multiple of 16'):
    read.shape(read.stages[0], 4)


def test_configs_of_earlier_versions_mean_the_same(caplog):
  values = config('biggan_digits')
  values['collapse'] = dict(action='warn', lr_factor=0.25)
  present = parse_config(values)
  values['log']['sheet_every'] = values['log'].pop('grid_every')
  values['watch'] = dict(response='tell', lower=0.25)
  del values['collapse']
  assert parse_config(values) == present
  assert 'log.sheet_every is called log.grid_every now' in caplog.text
  assert 'watch.lower is called collapse.lr_factor now' in caplog.text


def test_the_g_step_has_batches_and_micro_batches_of_its_own():
  values = config('biggan_digits')
  values['schedule'] |= dict(batch=16)
  values['train'] |= dict(accum=2, g_accum=3, g_batch=12, d_steps=2)
  read = parse_config(values)
  assert read.shape(read.stages[0], 4) == (4, 2, 1)
  values['train']['g_batch'] = 18
  read = parse_config(values)
  with pytest.raises(UserError, match='train.g_batch=18 .* train.g_accum=3: .* of 12'):
    read.shape(read.stages[0], 4)
  del values['train']['g_batch'], values['train']['g_accum']
  read = parse_config(values)
  assert read.shape(read.stages[0], 4) == (4, 2, 2)


def test_lists_and_ints_come_back_from_json_as_they_were():
  values = config('biggan_imagenet', 'tiny')
  values['schedule']['g_lr'] = 1
  assert parse_config(json.loads(json.dumps(values))) == parse_config(values)


@pytest.mark.parametrize(
  'section, key, value, words',
  [
    ('model', 'gp_target', 0.0, 'model.gp_target is 0.0'),
    ('train', 'd_steps', 2, 'train.simultaneous is True and train.d_steps is 2'),
  ],
)
def test_mistakes_of_a_wasserstein_gan(section, key, value, words):
  values = config('progan_cifar10', 'paper')
  values[section][key] = value
  with pytest.raises(UserError, match=words):
    parse_config(values)
