"""Mistakes in a config are one sentence that names the key."""

import importlib
import json
from pathlib import Path

import jax
import pytest

from gan_jax import UserError
from gan_jax.config import parse_config
from gan_jax.training import trainer

CONFIGS = sorted(
  path.stem for path in (Path(__file__).parents[2] / 'configs').glob('*.py')
)


def config(name, variant=''):
  return importlib.import_module(f'configs.{name}').get_config(variant).to_dict()


@pytest.mark.parametrize('name', CONFIGS)
def test_every_config_builds_at_full_size(name):
  module = importlib.import_module(f'configs.{name}')
  for variant in getattr(module, 'VARIANTS', ('',)):
    read = parse_config(config(name, variant))
    g, d = jax.eval_shape(read.gan.init, jax.random.key(0))
    images = jax.eval_shape(
      read.gan.generate,
      g,
      jax.ShapeDtypeStruct((2, read.gan.dim_z), 'float32'),
      jax.ShapeDtypeStruct((2,), 'int32'),
    )
    assert images.shape == (2, read.gan.res, read.gan.res, read.gan.channels)
  with pytest.raises(ValueError, match='nonsense'):
    module.get_config('nonsense')


@pytest.mark.parametrize('name', CONFIGS)
def test_every_tiny_config_runs_two_steps(name, tmp_path):
  values = config(name, 'tiny')
  read = parse_config(values)
  state = trainer.train(read, values, tmp_path)
  lines = [json.loads(x) for x in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
  assert int(state.step) == len([line for line in lines if 'd_real' in line]) == 2
  assert len(list((tmp_path / 'sheets').glob('*.png'))) == len(read.stages)


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


def test_lists_and_ints_come_back_from_json_as_they_were():
  values = config('biggan_imagenet', 'tiny')
  values['schedule']['g_lr'] = 1
  assert parse_config(json.loads(json.dumps(values))) == parse_config(values)
