"""Progressive growing: one compile per resolution, in advance; resuming in a fade."""

import jax
import numpy as np
import pytest

from gan_jax import UserError
from tests.runs import metric_lines, tiny_config, train


def growing(images, **changes):
  """4 pixels for 8 images, a fade over 24, then 8 pixels; iterations of 8 images."""
  schedule = dict(schedule__stabilise=8, schedule__fade=24, train__images=images)
  small = dict(log__grid_rows=2, log__grid_columns=2)
  return tiny_config('stylegan_lsun', **schedule | small | changes)


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory):
  """A run of six steps: its folder, its last state, and what was compiled."""
  compiled = []

  def note(event, _, **kw):
    if event.endswith('backend_compile_duration'):
      compiled.append(kw['fun_name'])

  jax.monitoring.register_event_duration_secs_listener(note)
  try:
    folder = tmp_path_factory.mktemp('uninterrupted')
    state = train(growing(6 * 8), folder)
  finally:
    jax.monitoring.unregister_event_duration_listener(note)
  return folder, state, compiled


def test_each_resolution_is_compiled_once(uninterrupted):
  _, state, compiled = uninterrupted
  assert int(state.step) == 6
  assert compiled.count('jit(step)') == 2
  assert compiled.count('jit(sample)') == 2


def test_metrics_record_stages_and_alpha(uninterrupted):
  steps = metric_lines(uninterrupted[0])
  assert [line['images'] for line in steps] == [8, 16, 24, 32, 40, 48]
  assert [line['res'] for line in steps] == [4, 4, 8, 8, 8, 8]
  np.testing.assert_allclose(
    [line['alpha'] for line in steps], [1, 1, 1 / 3, 2 / 3, 1, 1], rtol=1e-6
  )
  (change,) = metric_lines(uninterrupted[0], 'change_s')
  assert (change['images'], change['res']) == (16, 8)
  assert {p.stem for p in (uninterrupted[0] / 'samples').iterdir()} >= {'0000000016'}


def test_a_run_resumed_between_evaluations_of_the_schedule(tmp_path):
  held = dict(schedule__minibatch_repeats=2)
  whole = train(growing(6 * 8, **held), tmp_path / 'whole')
  steps = metric_lines(tmp_path / 'whole')
  assert [line['res'] for line in steps] == [4, 4, 8, 8, 8, 8]
  np.testing.assert_allclose(
    [line['alpha'] for line in steps], [1, 1, 1 / 3, 1 / 3, 1, 1], rtol=1e-6
  )
  train(growing(3 * 8, **held), tmp_path / 'parts')
  resumed = train(growing(6 * 8, **held), tmp_path / 'parts')
  jax.tree.map(np.testing.assert_array_equal, resumed, whole)


@pytest.mark.parametrize('stop', [2, 3, 4])  # as a fade begins, within, as it ends
def test_a_run_resumed_in_a_fade_is_the_same_run(uninterrupted, tmp_path, stop):
  train(growing(stop * 8), tmp_path)
  resumed = train(growing(6 * 8), tmp_path)
  for a, b in zip(
    jax.tree.leaves(resumed), jax.tree.leaves(uninterrupted[1]), strict=True
  ):
    np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize(
  'changes, words',
  [
    (dict(model__res=24), 'model.res is 24: growing takes powers of two'),
    (dict(model__res=16, model__g_widths=(), model__d_widths=()), 'ends with 8, but'),
    (dict(schedule__resolutions=(4, 16)), 'from 4 to 16: 8 must come next'),
    (dict(schedule__batch=(8, 6)), 'batch=6 .*model.mbstd_group=4: take a multiple'),
    (dict(model__mbstd_group=3), 'batch=8 .*model.mbstd_group=3'),
    (dict(model__n_classes=5), 'n_classes=5.*10 classes'),
    (dict(data__name='digits', data__flip=False), "'digits' has 1: set model.chann"),
  ],
)
def test_mistakes_end_before_anything_is_written(tmp_path, changes, words):
  with pytest.raises(UserError, match=words):
    train(growing(16, **changes), tmp_path / 'run')
  assert not (tmp_path / 'run').exists()
