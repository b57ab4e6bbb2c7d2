"""Mistakes in a config are one sentence that names the key."""

import importlib
import json
from pathlib import Path

import jax
import pytest

from gan_jax import UserError
from gan_jax.config import load_config, parse_config
from gan_jax.config.workdir import read_config
from gan_jax.runtime.mesh import make_mesh
from gan_jax.training import trainer
from tests.runs import metric_lines

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
def test_every_tiny_config_trains_two_steps(name, tmp_path, monkeypatch):
  # On one device, as on a laptop: the step compiles faster than for eight.
  one_device = lambda devices=None: make_mesh(devices or jax.devices()[:1])
  monkeypatch.setattr(trainer, 'make_mesh', one_device)
  parsed = parse_config(config(name, 'tiny'))
  state = trainer.Trainer(parsed, tmp_path).run()
  assert int(state.step) == len(metric_lines(tmp_path)) == 2
  assert len(list((tmp_path / 'samples').glob('*.png'))) == len(parsed.stages)


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
    ('collapse', 'lr_factor', 0.0, 'collapse.lr_factor is 0.0'),
    ('log', 'ring', 2, 'log.ring is now log.keep_periodic'),
    ('log', 'sheet_every', 2, 'log.sheet_every is now log.grid_every'),
    (
      'watch',
      'response',
      'tell',
      'watch.response is now collapse.action',
    ),
    ('collapse', 'action', 'tell', "it is now called 'warn'"),
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


@pytest.mark.parametrize('name', CONFIGS)
def test_a_config_written_in_full_is_the_same_config(name):
  parsed = parse_config(config(name))
  assert parse_config(json.loads(json.dumps(parsed.to_dict()))) == parsed


def test_a_config_is_loaded_from_its_file():
  assert load_config('configs/biggan_digits.py:tiny') == parse_config(
    config('biggan_digits', 'tiny')
  )
  with pytest.raises(UserError, match='did you mean configs/biggan_digits.py'):
    load_config('configs/biggan_digit.py')
  with pytest.raises(UserError, match="no variant 'tini'"):
    load_config('configs/biggan_digits.py:tini')


def test_a_workdir_of_an_earlier_version_names_the_new_key(tmp_path):
  values = config('biggan_digits')
  values['log']['sheet_rows'] = 2
  (tmp_path / 'config.json').write_text(json.dumps(values))
  with pytest.raises(UserError, match='config.json: .*sheet_rows is now log.grid_rows'):
    read_config(tmp_path)


def test_lists_and_ints_come_back_from_json_as_they_were():
  values = config('biggan_imagenet', 'tiny')
  values['schedule']['g_lr'] = 1
  assert parse_config(json.loads(json.dumps(values))) == parse_config(values)
