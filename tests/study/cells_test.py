"""The cells of a study: their configs, names and progress."""

import json

import pytest

from gan_jax.study import cells
from tests.study.studies import CONFIG, described, write_lines, write_run


def test_learning_rates_and_ema_follow_the_batch(tmp_path):
  flags = ('--batches=8,32', '--lr_rules=constant,sqrt,linear', '--lr_factors=1,3')
  study, found, faults = described(tmp_path, CONFIG, *flags)
  assert not faults
  rates = {(cell.batch, cell.rate) for cell in found}
  assert rates == {(8, 1), (8, 3), *((32, r) for r in (1, 2, 3, 4, 6, 12))}
  base = study.base['schedule']
  for cell in found:
    schedule = cell.config.schedule
    assert schedule.batch == cell.batch and cell.config_batch == 8
    assert schedule.g_lr == pytest.approx(base['g_lr'] * cell.rate)
    assert schedule.d_lr == pytest.approx(base['d_lr'] * cell.rate)
    # the half-life of the EMA weights stays what it is in images
    assert schedule.ema == pytest.approx(base['ema'] ** (cell.batch / 8))
  assert [cell.index for cell in found] == list(range(8))


def test_a_growing_gan_has_the_batch_in_all_stages(tmp_path):
  flags = ('--config=progan_emoji:tiny', '--batches=8', '--lr_factors=2')
  study, (cell,), faults = described(tmp_path, *flags)
  assert not faults and {stage.batch for stage in cell.config.stages} == {8}
  base = study.base['schedule']['g_lr']
  assert cell.config.schedule.g_lr == tuple(2 * rate for rate in base)


def test_a_run_is_scored_and_watched_often_enough(tmp_path):
  flags = (CONFIG, '--images=6400', '--score=precision_small')
  _, (cell,), _ = described(tmp_path, *flags)
  assert cell.config.train.images == 6400
  assert cell.config.score.every == 320
  assert cell.config.score.metrics == ('prdc_small',)
  assert cell.config.log.grid_every <= 800 and cell.config.log.metrics_every <= 320
  overrides = [('log.grid_every', '5000'), ('score.metrics', 'prdc_small,swd')]
  _, (cell,), _ = described(tmp_path, *flags, '--score_every=99', overrides=overrides)
  assert cell.config.log.grid_every == 5000 and cell.config.score.every == 99
  assert cell.config.score.metrics == ('prdc_small', 'swd')


def test_names_say_what_a_cell_is_and_settings_what_varies(tmp_path):
  sweep = ('--accum=2', '--sweep=data.name=a b,a_b', '--d_steps=1,2')
  _, found, faults = described(tmp_path, CONFIG, '--batches=16', *sweep)
  assert not faults and len({cell.name for cell in found}) == 4
  plain = [cell.name for cell in found if 'a_b' in cell.setting]
  assert plain[0] == 'b16-x1-name_a_b-d_steps_1-accum_2-s0'
  quoted = next(cell.name for cell in found if 'a b' in cell.setting)
  assert quoted.startswith('b16-x1-name_a_b-d_steps_1-accum_2-s0-')
  assert found[0].setting == 'data.name=a b, train.d_steps=1'  # accum does not vary
  _, more, _ = described(tmp_path, CONFIG, '--batches=8,16', '--seeds=2', *sweep)
  assert {cell.name for cell in found} < {cell.name for cell in more}


def test_what_shows_where_the_cells_run(tmp_path):
  study, found, _ = described(tmp_path, CONFIG, '--batches=8,12,20')
  assert cells.check_cells(study, found, 4) == []
  faults = cells.check_cells(study, found, 8)
  assert [fault.partition(' does')[0] for fault in faults] == [
    'schedule.batch=12',
    'schedule.batch=20',
  ]
  write_run(study, found[0], {1: 1.0})
  assert cells.check_cells(study, found, 4) == []
  other, changed, _ = described(tmp_path, CONFIG, '--batches=8', '--sweep=model.g_ch=8')
  assert changed[0].name != found[0].name
  workdir = found[0].workdir(study.folder)
  values = json.loads((workdir / 'config.json').read_text())
  values['schedule']['g_lr'] = 0.5
  (workdir / 'config.json').write_text(json.dumps(values))
  (fault,) = cells.check_cells(study, found, 4)
  assert 'b8-x1-s0 was run with another config (schedule.g_lr: 0.5 -> ' in fault


@pytest.mark.parametrize(
  'starts, state, images',
  [
    ([], 'waiting', 0),
    ([{'images': 0}], 'started', 0),
    ([{'images': 0, 'until_images': 40}], 'started', 40),
    ([{'images': 0, 'until_images': 64, 'ended': 'stopped'}], 'started', 64),
    ([{'images': 0, 'until_images': 64, 'ended': 'finished'}], 'finished', 64),
    ([{'images': 0, 'until_images': 32, 'ended': 'finished'}], 'started', 32),
    ([{'until_images': 64, 'ended': 'finished'}, {'images': 64}], 'started', 0),
    ([{'images': 0, 'until_images': 32, 'ended': 'stopped at image 32'}], 'lost', 32),
    ([{'images': 0, 'until_images': 'x', 'ended': None}], 'started', 0),
  ],
)
def test_the_progress_of_a_run(tmp_path, starts, state, images):
  _, (cell,), _ = described(tmp_path, CONFIG, '--images=64')
  write_lines(tmp_path / 'starts.jsonl', starts)
  progress = cells.read_progress(cell, tmp_path)
  assert (progress.state, progress.images) == (state, images)
  assert cells.is_closed(progress) == (state in ('finished', 'lost'))
