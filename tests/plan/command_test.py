"""The command: what it plans, prints and refuses."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from gan_jax import UserError
from gan_jax.plan import __main__ as command
from gan_jax.plan import compilation, formatting

ROOT = Path(__file__).parents[2]


def arguments(*more, config='configs/biggan_digits.py:tiny'):
  return command.make_parser().parse_args([f'--config={ROOT / config}', *more])


@pytest.fixture(scope='module')
def local_plan(tmp_path_factory):
  """(folder, arguments, rows) of a tiny growing GAN on the local devices."""
  folder = tmp_path_factory.mktemp('plan')
  args = arguments(
    f'--cache={folder}',
    f'--json={folder / "rows.json"}',
    config='configs/progan_emoji.py:tiny',
  )
  return folder, args, command.run_plan(args)


def test_a_growing_gan_has_a_row_for_each_stage(local_plan):
  folder, _, rows = local_plan
  config = command.load_with_overrides(f'{ROOT}/configs/progan_emoji.py:tiny', {})
  assert [row['res'] for row in rows] == [s.res for s in config.stages]
  assert json.loads((folder / 'rows.json').read_text()) == rows
  g, d = jax.eval_shape(config.gan.init, jax.random.key(0))
  count = sum(np.prod(x.shape) for x in jax.tree.leaves((g['params'], d['params'])))
  for row in rows:
    assert row['params_bytes'] == 4 * count
    assert row['chips'] == len(jax.devices()) and row['fits']
    assert row['donated_bytes'] > 0.9 * row['state_bytes']
    assert 'all-reduce' in {c['kind'] for c in row['collectives']}
    assert row['run_s'] > 0 and row['mfu'] > 0


def test_a_program_is_compiled_once(local_plan, monkeypatch, capsys):
  folder, args, rows = local_plan
  assert len(list(folder.glob('*.gz'))) == len(rows)
  compile_again = lambda _: pytest.fail('compiled again')
  monkeypatch.setattr(compilation, 'compile_program', compile_again)
  again = command.run_plan(args)
  assert [r['hbm_bytes'] for r in again] == [r['hbm_bytes'] for r in rows]
  printed = capsys.readouterr().out
  assert 'parameters' in printed and 'MFU' in printed and 'roofline' in printed


def test_what_the_time_leaves_out_is_named(local_plan):
  row = local_plan[2][0] | {'cycles': 30_000_000, 'rows_without_estimate': 22_431_987}
  line = '  not counted  gathers and scatters of 22.4 M rows\n'
  assert line in formatting.format_row(row, top=0)
  for other in ({'rows_without_estimate': 99_999}, {'cycles': 0}):
    assert 'not counted' not in formatting.format_row(row | other, top=0)


def test_a_step_that_does_not_fit_is_printed_without_times():
  row = dict(config='c.py', topology='v5e:2x2', chips=4, pixels='8 x 8', batch=64)
  row |= dict(chip={'name': 'TPU v5e', 'hbm': 16e9}, fits=False, advice='would fit: x')
  row |= dict(params_bytes=5, optimizer_bytes=2e3, ema_bytes=3e6, hbm_bytes=20e9)
  assert formatting.format_row(row | {'model.remat': False}, top=2) == (
    'c.py on v5e:2x2 (4 x TPU v5e), 8 x 8 pixels, batch 64, model.remat=False\n'
    '  memory       20 GB of 16 GB per device: DOES NOT FIT; would fit: x\n'
    '  state        parameters 5 B, optimizers 2 kB, EMA weights 3 MB\n'
  )


@pytest.mark.parametrize(
  'more, words',
  [
    (['--topology=v5e'], 'the shape of its slice'),
    (['--topology=x9:8'], 'v4, v5e, v5p, v6e.* or a GPU .h100, '),
    (['--batch=12'], 'schedule.batch=12 does not divide by 8 devices'),
    (['--batch=x'], 'a whole number above 0'),
    (['--sweep=remat=1'], 'did you mean --config.model.remat'),
    (['--sweep=model.remt=1'], 'did you mean --config.model.remat'),
    (['--sweep=model.remat'], 'a key of the config'),
    (['--sweep=model.remat=2'], "model.remat is '2': bool is needed"),
    (['--res=5'], '--res=5 is no stage'),
  ],
)
def test_mistakes_are_one_sentence(more, words, tmp_path):
  with pytest.raises(UserError, match=words):
    command.run_plan(arguments(*more, f'--cache={tmp_path}'))


def test_paths_are_checked_before_anything_is_compiled(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  args = arguments('--json=~/new/a.json', '--cache=~/cache')
  assert args.json == tmp_path / 'new' / 'a.json' and args.cache == tmp_path / 'cache'
  (tmp_path / 'file').write_text('')
  for flag, words in (
    ('--json=~/file/a.json', f'--json={tmp_path}/file/a.json cannot be written'),
    ('--json=~', 'is a folder: name a file'),
    ('--json=~/x.py', 'but a .json file is written'),
    ('--cache=~/file', f'--cache={tmp_path}/file cannot be written'),
  ):
    with pytest.raises(UserError, match=words):
      command.run_plan(arguments(flag))


def test_missing_configs_are_refused():
  with pytest.raises(UserError, match='there is no such file'):
    command.load_with_overrides('configs/biggan_imagenette.py', {})
  with pytest.raises(UserError, match='no variant'):
    command.load_with_overrides(f'{ROOT}/configs/biggan_imagenet.py:64', {})
  with pytest.raises(UserError, match='get_config'):
    command.load_with_overrides(__file__, {})


def test_a_sweep_plans_every_combination():
  args = arguments(
    '--topology=v5e:2x2,v4:2x2x1', '--batch=8,16', '--sweep=model.dtype=float32'
  )
  assert list(command.combinations(args)) == [
    ({'batch': b, 'model.dtype': 'float32'}, t)
    for t in ('v5e:2x2', 'v4:2x2x1')
    for b in ('8', '16')
  ]
  config = command.load_with_overrides(
    args.config, {'batch': '16', 'model.dtype': 'bfloat16'}
  )
  assert config.stages[0].batch == 16 and config.gan.dtype == 'bfloat16'


def test_values_of_a_sweep_may_be_tuples_and_keys_may_be_set_as_in_training():
  assert command.split_values('(8, 4),[16,8],2') == ['(8, 4)', '[16,8]', '2']
  keys = {'schedule.batch': '16', 'train.accum': '2', 'model.remat': None}
  config = command.load_with_overrides(f'{ROOT}/configs/biggan_digits.py', keys)
  assert command.chosen_values(config, ['batch', *keys]) == {
    'schedule.batch': 16,
    'train.accum': 2,
    'model.remat': True,
  }
