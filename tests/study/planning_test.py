"""Plans: programs that are shared, what does not fit or divide, and hours."""

import pytest

from gan_jax.study import planning
from tests.study.studies import CONFIG, described


@pytest.fixture
def compiled(monkeypatch):
  """Stands in for the compiler: programs that were compiled."""
  programs = []

  def compile_stage(program, cache):
    programs.append(program)
    batch = program.config['schedule']['batch']
    batch = batch if isinstance(batch, int) else batch[0]
    if program.topology == 'v5e:2x4' and batch == 4:
      return {'chips': 8, 'res': program.res, 'fits': False, 'error': 'no division'}
    row = {'res': program.res, 'batch': batch, 'chips': 4, 'hbm_bytes': 2e9}
    if batch == 16:
      return row | {'fits': False, 'advice': 'would fit: less'}
    time = {'step_s': 0.1, 'slowest_s': 0.2, 'images_per_s': 10.0 * batch}
    return row | time | {'fits': True, 'collectives_s': 0.1, 'mfu': 0.5}

  monkeypatch.setattr(planning, 'compile_stage', compile_stage)
  return programs


def test_cells_that_differ_in_rates_and_seeds_share_a_program(tmp_path, compiled):
  flags = ('--batches=4,8,16', '--seeds=3', '--lr_factors=1,2', '--images=3600')
  sweep = ('--sweep=score.n=10,20', '--sweep=model.remat=False,True')
  _, cells, faults = described(tmp_path, CONFIG, *flags, *sweep)
  assert not faults and len(cells) == 3 * 3 * 2 * 4
  lines = []
  topologies = ['v5e:2x2', 'v5e:2x4']
  rows = planning.plan_cells(cells, topologies, tmp_path, log=lines.append)
  assert len(compiled) == 2 * 3 * 2 and len(rows) == 2 * 3 * 4
  assert lines[0] == '12 programs to compile for 72 cells' and len(lines) == 13
  planning.write_plan(tmp_path, rows)
  planning.write_plan(tmp_path, rows[:1])
  assert planning.read_plan(tmp_path) == rows
  eight = next(r for r in rows if r['batch'] == 8 and r['fits'])
  assert eight['hours'] == pytest.approx(3600 / 80 / 3600)
  assert eight['slowest_hours'] == pytest.approx(2 * eight['hours'])
  assert eight['chip_hours'] == pytest.approx(4 * eight['hours'])
  assert not any('hours' in row for row in rows if row['batch'] == 16)
  text = planning.format_plan(rows)
  assert (
    text.count('\n') == len(rows) and 'batch 8, score.n=10, model.remat=False' in text
  )


def test_hours_of_a_growing_gan_are_those_of_its_stages(tmp_path, compiled):
  flags = ('--config=progan_emoji:tiny', '--batches=8')
  _, cells, faults = described(tmp_path, *flags)
  (row,) = planning.plan_cells(cells, ['v5e:2x2'], tmp_path, log=lambda _: None)
  config = cells[0].config
  assert len(row['stages']) == len(config.stages) == len(compiled) > 1
  assert row['hours'] == pytest.approx(config.train.images / 80 / 3600)
  row['stages'][0]['images_per_s'] = 40.0
  first = config.stages[1].after + 1
  slower = planning.planned_hours(config, row, config.train.images)
  assert slower['hours'] - row['hours'] == pytest.approx(first / 80 / 3600)
  assert planning.planned_hours(config, {**row, 'stages': [{}]}, 9) == {}


def test_a_real_program_of_this_machine(tmp_path):
  _, cells, _ = described(tmp_path, CONFIG, '--batches=8,12')
  rows = planning.plan_cells(cells, ['local'], tmp_path, log=lambda _: None)
  assert rows[0]['fits'] and rows[0]['hours'] > 0 and rows[0]['chips'] == 8
  assert 'schedule.batch=12 does not divide by 8 devices' in rows[1]['error']


def test_topologies_that_do_not_exist_are_named_with_the_nearest():
  faults = planning.check_topologies(['local', 'v5e:16x16', 'v5e:3x5', 'v7:2x2', 'v4'])
  assert len(faults) == 3
  assert faults[0].startswith(
    'topologies: v5e:3x5: there is no such slice (did you mean'
  )
  assert 'v5e:4x4' in faults[0] and 'v5e, v5p, v6e' in faults[1]
