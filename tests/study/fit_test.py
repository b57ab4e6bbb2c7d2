"""Images to a target, the fit of McCandlish et al., its intervals, and rates."""

import numpy as np
import pytest
from scipy.optimize import least_squares

from gan_jax.study import fit

BATCHES = np.array([8, 16, 32, 64, 128.0])


def grid(rng, scatter=0.1, critical=40, seeds=3):
  """Arrivals with E = 2000 (1 + B / critical); the best rate is 2 at each batch."""
  logs = {}
  for batch in BATCHES:
    for rate in (1.0, 2.0, 4.0):
      mean = np.log(2000 * (1 + batch / critical)) + 0.5 * abs(np.log2(rate / 2))
      logs[int(batch), rate] = mean + scatter * rng.standard_normal(seeds)
  return logs


@pytest.mark.parametrize(
  'values, target, best, images',
  [
    ([4, 2, 1], 2, 'min', 200),
    ([4, 1, 0.5], 2, 'min', 150),  # half way by the logarithm
    ([1, 4, 0.5], 2, 'min', 100),  # the first time counts
    ([4, 3, 2.1], 2, 'min', np.inf),
    ([0.1, 0.3, 0.5], 0.4, 'max', 250),
    ([0.1, 0.3, 0.5], 0.05, 'max', 100),
    ([], 1, 'min', np.inf),
  ],
)
def test_images_to_a_target(values, target, best, images):
  found = fit.images_to_target([100, 200, 300][: len(values)], values, target, best)
  assert found == pytest.approx(images)


def test_an_exact_law_is_found_exactly(rng_seed):
  critical = float(np.exp(np.random.default_rng(rng_seed).uniform(1, 6)))
  log_images = np.log(500 * (1 + BATCHES / critical))
  e_min, found = fit.fit_batches(BATCHES, log_images)
  assert found == pytest.approx(critical, rel=2e-4)
  assert e_min == pytest.approx(500, rel=2e-4)


def test_the_fit_is_that_of_least_squares(rng_seed):
  rng = np.random.default_rng(rng_seed)
  noisy = np.log(500 * (1 + BATCHES / 40)) + 0.1 * rng.standard_normal((20, 5))
  e_mins, criticals = fit.fit_batches(BATCHES, noisy)
  for log_images, e_min, critical in zip(noisy, e_mins, criticals, strict=True):
    off = lambda x, y=log_images: x[0] + np.log1p(BATCHES / np.exp(x[1])) - y
    best = least_squares(off, [np.log(500), np.log(40)]).x
    assert np.log([e_min, critical]) == pytest.approx(best, abs=2e-3)


def test_intervals_hold_the_truth():
  held, found = 0, []
  for seed in range(30):
    result = fit.fit_target(grid(np.random.default_rng(seed)))
    assert result.fit and result.bends
    found.append(result.fit.critical_batch)
    held += result.critical_batch.low < 40 < result.critical_batch.high
    assert {way.rate for way in result.best.values()} == {2.0}
    assert not any(way.edge for way in result.best.values())
    low, high = result.images[64]
    assert low < result.best[64].images < high
  assert held >= 27 and np.mean(found) == pytest.approx(40, rel=0.08)


def test_one_seed_has_no_interval_and_two_batches_have_no_fit():
  logs = grid(np.random.default_rng(0), seeds=1)
  result = fit.fit_target(logs)
  assert result.fit and np.isnan([*result.critical_batch, *result.images[8]]).all()
  few = {key: x for key, x in grid(np.random.default_rng(0)).items() if key[0] < 32}
  result = fit.fit_target(few)
  assert result.fit is None and [*result.best] == [8, 16]
  assert np.isfinite(result.images[8]).all() and np.isnan(result.critical_batch.low)
  assert fit.fit_target({}).best == {}


def test_a_rate_counts_only_if_all_its_seeds_arrive():
  logs = grid(np.random.default_rng(0))
  logs[8, 2.0] = np.array([1.0, np.inf, 1.0])
  del logs[16, 1.0], logs[16, 4.0]
  result = fit.fit_target(logs)
  assert result.best[8].rate != 2.0 and result.best[8].edge
  assert result.best[16].rate == 2.0 and not result.best[16].edge  # the only one


def test_batches_on_one_side_show_no_bend():
  flat = {(int(b), 1.0): np.log([2000.0, 2000.0]) for b in BATCHES}
  steep = {(int(b), 1.0): np.log([2000.0 * b, 2000.0 * b]) for b in BATCHES}
  assert not fit.fit_target(flat).bends and not fit.fit_target(steep).bends


def test_rates_of_few_runs():
  assert fit.rate_interval(0, 10) == pytest.approx((0, 0.2775), abs=1e-4)
  assert fit.rate_interval(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
  assert fit.rate_interval(3, 3) == pytest.approx((0.4385, 1), abs=1e-4)
  assert np.isnan(fit.rate_interval(0, 0)).all()


def test_the_pareto_front():
  points = [(1.0, 9.0), (2.0, 4.0), (3.0, 5.0), (4.0, 4.0), (2.0, 4.0)]
  assert fit.pareto(points) == [True, True, False, False, True]
