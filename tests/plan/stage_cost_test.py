"""Memory, times and suggestions that follow from the figures of a program."""

import dataclasses
import importlib

import numpy as np
import pytest

from gan_jax.config import parse_config
from gan_jax.plan import chips, stage_cost

V5E = chips.CHIPS['v5e']


def progan_emoji():
  return parse_config(
    importlib.import_module('configs.progan_emoji').get_config('tiny').to_dict()
  )


def test_a_step_fits_if_the_compiler_and_the_chip_agree():
  chip = V5E._replace(hbm=16e9)
  parts = dict(state_bytes=1, batch_bytes=2, temporary_bytes=4)
  needs = [
    stage_cost.memory_need(row | parts, chip)
    for row in ({'hbm_bytes': 10}, {'hbm_bytes': 17e9}, {'out_of_memory': 'Too much.'})
  ]
  assert [(need['hbm_bytes'], need['fits']) for need in needs] == [
    (10, True),
    (17e9, False),
    (7, False),
  ]
  unknown = chip._replace(hbm=0)
  assert stage_cost.memory_need({'hbm_bytes': 10}, unknown)['fits']


def test_a_step_that_does_not_fit_says_what_would():
  row = dict(state_bytes=2**30, images_per_chip=32, accum=1, batch=64)
  row['hbm_bytes'] = int(20.5 * 2**30)
  chip = V5E._replace(hbm=16e9)
  # 20.5 - 1 GiB for 32 images: 22 at a time fit into the rest of 16 GB.
  assert stage_cost.what_would_fit(row, chip, remat=False) == (
    'would fit: about 22 images per device at a time, or train.accum=2 for the same '
    'batch, or 3 such devices, or model.remat=True'
  )
  refused = row | dict(hbm_bytes=2**30)
  assert stage_cost.what_would_fit(refused, chip, remat=False) == (
    'the compiler does not say how much is missing'
  )
  row['state_bytes'] = int(17e9)
  assert 'the state alone' in stage_cost.what_would_fit(row, V5E, remat=None)


def test_times_follow_from_published_figures():
  row = dict(
    program_flops=197e9,
    program_bytes=819e6,
    collectives=[{'sent': 2e8}],
    cycles=3_000_000,
    networks_flops=98.5e9,
  )
  assert stage_cost.step_times(row, V5E, images=100) == pytest.approx(
    dict(
      compute_s=1e-3,
      memory_s=1e-3,
      collectives_s=1e-3,
      step_s=2e-3,
      slowest_s=3e-3,
      mfu=0.25,
      slowest_mfu=1 / 6,
      images_per_s=50_000,
    )
  )
  local = V5E._replace(clock=0, ici=0)  # no cycles, no interconnect
  times = stage_cost.step_times(row, local, images=100)
  assert times['step_s'] == times['slowest_s'] == pytest.approx(2e-3)


def test_a_full_run_is_the_sum_of_its_stages():
  config = progan_emoji()
  ends = [s.after + 1 for s in config.stages[1:]] + [config.train.images]
  starts = [0, *ends[:-1]]
  rows = [{'images_per_s': 10.0 * (i + 1)} for i in range(len(ends))]
  want = sum(
    (e - s) / r['images_per_s'] for s, e, r in zip(starts, ends, rows, strict=True)
  )
  assert stage_cost.run_seconds(config, rows) == pytest.approx(want)
  assert np.isnan(stage_cost.run_seconds(config, [{} for _ in rows]))


def test_a_batch_replaces_those_of_all_stages():
  config = progan_emoji()
  assert {s.batch for s in stage_cost.with_batch(config, 24).stages} == {24}
  assert dataclasses.replace(config.schedule, batch=(24,)).batch == (24,)
