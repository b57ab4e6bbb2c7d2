"""Config keys on the command line: every key, each type, and mistakes."""

import dataclasses
import typing

import pytest

from gan_jax import UserError
from gan_jax.config import load_config, load_raw_config, parse_config
from gan_jax.config.overrides import apply_overrides, split_overrides
from gan_jax.config.parsing import section_classes
from gan_jax.config.values import format_value, parse_text

FAMILIES = {
  'biggan': 'biggan_emoji',
  'progan': 'progan_emoji',
  'stylegan': 'stylegan_lsun',
}


def set_keys(name, *flags):
  """The Config of a shipped config with keys set as on the command line."""
  others, overrides = split_overrides(flags)
  assert others == []
  return load_config(name, overrides)


def all_keys(family):
  """('section.key', annotation) of every field of every section's dataclass."""
  for section, cls in section_classes({'family': family}).items():
    annotations = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
      yield f'{section}.{field.name}', annotations[field.name]


@pytest.mark.parametrize('family', FAMILIES)
def test_every_key_can_be_set_and_keeps_its_type(family):
  config = load_config(FAMILIES[family])
  raw = config.to_dict()
  keys = dict(all_keys(family))
  assert len(keys) > 60 and 'collapse.action' in keys and 'train.accum' in keys
  for key, annotation in keys.items():
    section, _, name = key.partition('.')
    value = raw[section][name]
    assert parse_text(key, format_value(value).replace("''", ''), annotation) == value
  flags = [f'--config.{key}={format_value(raw_value(raw, key))}' for key in keys]
  flags = [flag.replace("''", '') for flag in flags]
  assert set_keys(FAMILIES[family], *flags) == config
  assert set_keys(FAMILIES[family], f'--config.model.family={family}') == config


def raw_value(raw, key):
  section, _, name = key.partition('.')
  return raw[section][name]


@pytest.mark.parametrize(
  'flag, key, value',
  [
    ('--config.train.accum=2', 'train.accum', 2),
    ('-config.train.accum=2', 'train.accum', 2),
    ('--config.train.images=25e6', 'train.images', 25_000_000),
    ('--config.train.images=52_000', 'train.images', 52_000),
    ('--config.train.images=2.5e3', 'train.images', 2500),
    ('--config.train.mapped=pmap', 'train.mapped', 'pmap'),
    ('--config.train.seed=7', 'train.seed', 7),
    ('--config.score.every=8', 'score.every', 8),
    (
      '--config.score.metrics=fd_small,prdc_small',
      'score.metrics',
      ('fd_small', 'prdc_small'),
    ),
    ('--config.data.upscale', 'data.upscale', True),
    ('--config.data.upscale=true', 'data.upscale', True),
    ('--config.data.flip=False', 'data.flip', False),
    ('--noconfig.data.flip', 'data.flip', False),
    ('--config.data.split=train[:90%]', 'data.split', 'train[:90%]'),
    ('--config.data.name=a=b, c', 'data.name', 'a=b, c'),
    ('--config.collapse.action=rollback', 'collapse.action', 'rollback'),
    ('--config.log.keep=5', 'log.keep', 5),
    ('--config.model.remat=1', 'model.remat', True),
    ('--config.model.g_widths=(8, 4, 2, 1)', 'model.g_widths', (8, 4, 2, 1)),
    ('--config.model.d_attention=16', 'model.d_attention', (16,)),
    ('--config.model.d_widths=1,2,4', 'model.d_widths', (1, 2, 4)),
    ('--config.schedule.g_lr=1', 'schedule.g_lr', 1.0),
    ('--config.schedule.ema_start=1e3', 'schedule.ema_start', 1000),
  ],
)
def test_values_by_type(flag, key, value):
  read = raw_value(set_keys('biggan_emoji', flag).to_dict(), key)
  assert read == value and type(read) is type(value)


@pytest.mark.parametrize(
  'text, value',
  [
    ('8,4', (8, 4)),
    ('(8, 4)', (8, 4)),
    ('[8,4]', (8, 4)),
    (' [ 8 , 4, ] ', (8, 4)),
    ('8', (8,)),
    ('8,', (8,)),
    ('(8,)', (8,)),
    ('[8]', (8,)),
    ('', ()),
    ('()', ()),
    ('[]', ()),
  ],
)
def test_tuples(text, value):
  assert parse_text('k', text, tuple[int, ...]) == value


def test_tuples_of_texts_may_be_quoted():
  for text in ("'8', 'up 4 attention'", '["8", "up 4 attention"]', '8,up 4 attention'):
    assert parse_text('k', text, tuple[str, ...]) == ('8', 'up 4 attention')


def test_an_optional_key_takes_none():
  assert parse_text('k', 'none', float | None) is None
  assert parse_text('k', '2', float | None) == 2.0
  with pytest.raises(UserError, match='float or none is needed'):
    parse_text('k', 'x', float | None)


def test_the_length_of_a_tuple_is_checked_by_its_section_not_kept():
  flag = '--config.schedule.batch'
  for text in ('16', '32,32,16'):
    schedule = set_keys('progan_emoji', f'{flag}={text}').schedule
    assert schedule.batch == tuple(map(int, text.split(',')))
  with pytest.raises(UserError, match='schedule.batch has 2 entries: it needs 1 or 3'):
    set_keys('progan_emoji', f'{flag}=8,4')
  with pytest.raises(UserError, match='schedule.batch has 0 entries'):
    set_keys('progan_emoji', f'{flag}=')
  with pytest.raises(UserError, match='model.g_widths has 2 entries'):
    set_keys('biggan_emoji', '--config.model.g_widths=8,4')


def test_a_key_and_its_value_may_be_two_arguments():
  argv = ['--workdir=x', '--config.train.accum', '2', '--config.data.flip']
  argv += ['--config.schedule.g_lr', '-1e-3', '--config.data.upscale', '--show']
  assert split_overrides(argv) == (
    ['--workdir=x', '--show'],
    [
      ('train.accum', '2'),
      ('data.flip', None),
      ('schedule.g_lr', '-1e-3'),
      ('data.upscale', None),
    ],
  )


def test_the_last_value_counts():
  flags = ['--config.train.accum=2', '--config.train.accum=4']
  assert set_keys('biggan_emoji', *flags).train.accum == 4


@pytest.mark.parametrize(
  'flag, words',
  [
    ('train.acum=2', "train has no key 'acum' .did you mean --config.train.accum"),
    ('trian.accum=2', 'did you mean --config.train.accum'),
    ('log.mapped=jit', 'did you mean --config.train.mapped'),
    ('batch=64', 'did you mean --config.schedule.batch'),
    ('zzz.yyy=64', 'the sections are model, schedule, '),
    ('train.accum=two', "train.accum is 'two': int is needed"),
    ('train.accum=1.5', "train.accum is '1.5': int is needed"),
    ('train.images=1.23e1', "train.images is '1.23e1': int is needed"),
    ('train.accum', 'train.accum needs a value'),
    ('data.flip=maybe', "data.flip is 'maybe': bool is needed"),
    ('schedule.g_lr=fast', "schedule.g_lr is 'fast': float is needed"),
    ('schedule.g_lr=nan', "schedule.g_lr is 'nan': float is needed"),
    ('schedule.g_lr=inf', "schedule.g_lr is 'inf': float is needed"),
    ('g_adam.beta2=2', 'g_adam.beta2 is 2.0: it must be at most 1'),
    ('d_adam.eps=-1', 'd_adam.eps is -1.0: it must be at least 0'),
    ('collapse.lr_factor=0', 'collapse.lr_factor is 0.0: it must be above 0'),
    ('data.name=', "data.name is ''"),
    ('data.name=gs:/b/x', 'data.name=gs:/b/x: two slashes follow gs:, as in gs://b/x'),
    ('data.name=https://h/x', 'data.name=https://h/x: https:// is not supported'),
    ('data.data_dir=s3://', 'data.data_dir=s3:// lacks a bucket: write s3://BUCKET'),
    ('data.cache=gs://b/x', 'data.cache=gs://b/x is a URL, and a path of a file or'),
    ('model.g_attention=-1', 'model.g_attention contains -1: entries must be at least'),
    ('model.g_widths=8,x', "model.g_widths is '8,x': a tuple of ints is needed"),
    ('model.g_widths=(8,4', 'a tuple of ints is needed'),
    ('model.g_widths=8,,4', 'a tuple of ints is needed'),
    ('model.g_widths[0]=8', 'did you mean --config.model.g_widths'),
    ('watch.response=leave', "collapse.action is 'leave'"),
    ('train.mapped=xmap', 'allowed are pmap and jit'),
    ('schedule.ema=2', 'schedule.ema is 2.0: it must be at most 1'),
    ('model.dim_z=-4', 'model.dim_z is -4: it must be at least 1'),
    ('model.dtype=float99', "model.dtype is 'float99'"),
    ('model.family=bigan', "did you mean 'biggan'"),
    (
      'model.family=progan',
      'the config file is for biggan, and model.d_ch, model.g_ch, model.sh',
    ),
  ],
)
def test_mistakes_name_key_value_and_type(flag, words):
  with pytest.raises(UserError, match=words) as error:
    set_keys('biggan_emoji', f'--config.{flag}')
  assert len(str(error.value).splitlines()) == 1


def test_keys_of_earlier_versions_are_set_by_either_name():
  old = set_keys(
    'biggan_emoji', '--config.watch.lower=0.1', '--config.log.sheet_rows=3'
  )
  new = set_keys(
    'biggan_emoji', '--config.collapse.lr_factor=0.1', '--config.log.grid_rows=3'
  )
  assert old == new and old.log.grid_rows == 3
  assert set_keys('biggan_emoji', '--config.watch.response=tell') == set_keys(
    'biggan_emoji'
  )


def test_the_family_can_change_where_the_keys_of_the_file_fit():
  read = set_keys('progan_emoji', '--config.model.family=stylegan')
  assert read.gan.style_based and read.gan.res == 32


def test_a_config_of_plain_mappings_is_not_changed():
  values = load_raw_config('biggan_emoji')
  before = parse_config(values)
  assert apply_overrides(values, [('log.keep', '7')])['log']['keep'] == 7
  assert parse_config(values) == before
  with pytest.raises(UserError, match='train is 3: a section'):
    apply_overrides(values | {'train': 3}, [('train.accum', '2')])
