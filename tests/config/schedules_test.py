"""Schedules: resolutions, fades and resets happen at the images they are set for."""

import dataclasses

import numpy as np
import pytest

from gan_jax import UserError
from gan_jax.config import parse_config
from gan_jax.config.schedules import ConstantSchedule, ProgressiveSchedule

GROW = ProgressiveSchedule(
  resolutions=(8, 16, 32),
  stabilise=100,
  fade=50,
  batch=(32, 16, 8),
  g_lr=(1e-3, 2e-3, 3e-3),
)


def grow(resolutions, batch, **settings):
  return ProgressiveSchedule(resolutions=resolutions, batch=batch, **settings)


def test_resolution_and_alpha_follow_the_images_seen():
  seen = [GROW.phase_at(i, 32) for i in (0, 100, 101, 125, 150, 251, 300, 10**6)]
  assert [p.res for p in seen] == [8, 8, 16, 16, 16, 32, 32, 32]
  alphas = [float(p.alpha) for p in seen]
  np.testing.assert_allclose(alphas, [1, 1, 0.02, 0.5, 1, 0.02, 1, 1], atol=1e-6)


def test_stages_begin_where_phases_change_resolution():
  assert GROW.stages(32) == ((-1, 8, 32), (100, 16, 16), (250, 32, 8))
  for after, res, _ in GROW.stages(32)[1:]:
    assert GROW.phase_at(after, 32).res == res // 2
    assert GROW.phase_at(after + 1, 32).res == res


def test_learning_rates_are_those_of_the_stage():
  rates = [float(GROW.phase_at(i, 32).g_lr) for i in (100, 101, 300)]
  np.testing.assert_allclose(rates, [1e-3, 2e-3, 3e-3], rtol=1e-6)


def test_learning_rates_drop_after_so_many_images():
  seen = (0, 119, 120, 10**6)
  late = dataclasses.replace(GROW, warmup=240, lr_drop_after=120, lr_drop=0.25)
  rates = [float(late.phase_at(i, 32).g_lr) for i in seen]
  expected = [0, 2e-3 * 119 / 240, 2e-3 * 0.25 * 120 / 240, 3e-3 * 0.25]
  np.testing.assert_allclose(rates, expected, rtol=1e-6)
  late = ConstantSchedule(batch=1, g_lr=4e-3, d_lr=1e-3, lr_drop_after=120)
  phases = [late.phase_at(i, 32) for i in seen]
  np.testing.assert_allclose([p.g_lr for p in phases], [4e-3] * 2 + [4e-4] * 2)
  np.testing.assert_allclose([p.d_lr for p in phases], [1e-3] * 2 + [1e-4] * 2)
  with pytest.raises(UserError, match=r'schedule\.lr_drop is 2'):
    ConstantSchedule(batch=1, lr_drop=2.0)


def test_optimizers_are_reset_where_a_fade_begins_and_ends():
  assert [i for i in range(400) if GROW.resets_between(i, i + 1)] == [
    100,
    149,
    250,
    299,
  ]
  assert not GROW.resets_between(10**5, 10**6)
  assert not ConstantSchedule(batch=1).resets_between(0, 10**6)


def test_the_half_life_of_the_ema_is_in_images():
  half = dataclasses.replace(GROW, ema_half_life=1000)
  np.testing.assert_allclose(half.phase_at(0, 32).ema, 0.5 ** (32 / 1000), rtol=1e-6)


def test_one_resolution_never_fades():
  still = ProgressiveSchedule(resolutions=(32,), batch=(4,), stabilise=0, fade=0)
  phase = still.phase_at(5, 32)
  assert (phase.res, float(phase.alpha)) == (32, 1)


def test_without_a_fade_the_resolution_jumps():
  jump = ProgressiveSchedule(resolutions=(4, 8), batch=(4,), stabilise=10, fade=0)
  ((_, *_), (after, res, _)) = jump.stages(8)
  assert [jump.phase_at(i, 8).res for i in (after, after + 1)] == [4, res]
  assert [i for i in range(30) if jump.resets_between(i, i + 1)] == [after]


def growing_config(schedule, d_steps):
  """A config of a ProGAN with this schedule."""
  values = {
    'model': {'family': 'progan', 'res': schedule.resolutions[-1], 'mbstd_group': 1},
    'schedule': dataclasses.asdict(schedule),
    'data': {'name': 'synthetic'},
    'train': {'images': 10**6, 'd_steps': d_steps},
    'log': {'metrics_every': 1, 'grid_every': 1, 'checkpoint_every': 1},
  }
  return parse_config(values)


def original_loop(schedule, d_steps, end):
  """The loop of the originals: (images, images evaluated at, reset before) by step."""
  images, ends = 0, None
  while images < end:
    evaluated, lod = images, schedule.lod_at(images)
    before, ends = ends, (np.floor(lod), np.ceil(lod))
    res = 32 >> int(np.floor(lod))
    (batch,) = [s.batch for s in schedule.stages(32) if s.res == res]
    for repeat in range(schedule.minibatch_repeats):
      yield images, evaluated, not repeat and before not in (None, ends)
      images += d_steps * batch


@pytest.mark.parametrize('repeats', [1, 3, 4])
@pytest.mark.parametrize('d_steps', [1, 2])
def test_the_schedule_is_evaluated_every_few_iterations(repeats, d_steps, rng_seed):
  rng = np.random.default_rng(rng_seed)
  stabilise, fade = rng.integers(0, 200), rng.integers(1, 200)
  batch = tuple(rng.integers(1, 40, 3).tolist())
  schedule = dataclasses.replace(
    GROW, stabilise=int(stabilise), fade=int(fade), batch=batch,
    minibatch_repeats=repeats,
  )  # fmt: skip
  config, before = growing_config(schedule, d_steps), 0
  for images, evaluated, resets in original_loop(schedule, d_steps, 2000):
    assert config.phase_at(images) == schedule.phase_at(evaluated, 32)
    assert config.resets_between(before, images) == resets
    before = images
  assert schedule.evaluated_at(10**9, d_steps) <= 10**9


@pytest.mark.parametrize(
  'make, complaint',
  [
    (
      lambda: grow((5,), (4,)),
      r'resolutions is \(5,\): it must start with a power',
    ),
    (lambda: grow((), (4,)), r'resolutions is \(\)'),
    (lambda: grow((4, 16), (4,)), 'from 4 to 16: 8 must come next'),
    (
      lambda: grow((4, 8), ()),
      'schedule.batch has 0 entries: it needs 1 or 2',
    ),
    (
      lambda: grow((4, 8), (4, 0)),
      'schedule.batch contains 0: entries must be',
    ),
    (
      lambda: grow((4, 8), (4,)).stages(16),
      'ends with 8, but model.res is 16',
    ),
    (lambda: grow((4, 8), (4,), stabilise=0, fade=0), 'one of them must be positive'),
  ],
)
def test_impossible_schedules_are_errors(make, complaint):
  with pytest.raises(UserError, match=complaint):
    make()
