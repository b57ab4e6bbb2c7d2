"""The verdict on a run: none while it is healthy, early once it has collapsed."""

import jax
import numpy as np
import pytest

from gan_jax.config import CollapseConfig
from gan_jax.nn.spectral_norm import init_spectral, spectral_scales
from gan_jax.training import collapse_monitor


def metric_lines(diversity, gap, res=16, start=0, per_grid=5, grad=None, sigma=None):
  """Lines of metrics.jsonl: a sample grid per entry, after `per_grid` iterations."""
  found, images = [], start
  grad, sigma = (x or [1.0] * len(gap) for x in (grad, sigma))
  grids = zip(diversity, gap, grad, sigma, strict=True)
  for step, (varied, apart, g_grad, g_sigma) in enumerate(grids, 1):
    scores = {'d_real': apart, 'd_fake': 0.0, 'g_grad': g_grad, 'res': res}
    for _ in range(per_grid):
      images += 8
      found.append({'images': images, **scores})
    grid = {'images': images, 'step': start + step, 'g_sigma': g_sigma}
    found.append(grid | {'diversity': varied})
  return found


def verdicts(lines, **limits):
  monitor = collapse_monitor.CollapseMonitor(CollapseConfig(**limits))
  found = []
  for line in lines:
    monitor.add_line(line)
    if 'diversity' in line:
      found.append((monitor.verdict(), monitor.good_step))
  return found


def test_the_fluctuations_of_a_healthy_run_are_no_collapse(rng_seed):
  rng = np.random.default_rng(rng_seed)
  varied = np.linspace(0.05, 0.4, 50) * rng.uniform(0.6, 1.4, 50)
  gap, grad = rng.uniform(0.3, 2, 50), [*rng.uniform(1, 4, 50)]
  sigma = [*np.geomspace(1, 8, 50)]  # slowly
  lines = metric_lines(varied, gap, grad=grad, sigma=sigma)
  assert {v for v, _ in verdicts(lines)} == {None}


def test_low_diversity_is_detected():
  found = verdicts(metric_lines([0.2, 0.3, 0.3, 0.05, 0.3, 0.05, 0.05], [1.0] * 7))
  assert [v is not None for v, _ in found] == [False] * 6 + [True]
  assert 'vary by 0.050, at best by 0.300' in found[-1][0]
  assert found[-1][1] == 5  # the last grid that was good


def test_a_large_gap_of_discriminator_scores_is_detected():
  gap = [1.0, 1.2, 0.8, 1.0, 20.0, 20.0]
  found = verdicts(metric_lines([0.3] * 6, gap))
  assert [v is not None for v, _ in found] == [False] * 5 + [True]
  assert found[-1][1] == 4
  assert verdicts(metric_lines([0.3] * 6, gap), max_gap_ratio=0.0)[-1][0] is None


@pytest.mark.parametrize(
  'grad, sigma, off, words',
  [
    (0.05, 1.0, 'max_gradient_ratio', "G's gradient is 0.05, usually 1"),
    (20.0, 1.0, 'max_gradient_ratio', "G's gradient is 20, usually 1"),
    (1.0, 5.0, 'max_sigma_ratio', "G's largest singular value is 5, usually 1"),
  ],
)
def test_unusual_gradients_and_singular_values_are_detected(grad, sigma, off, words):
  grad, sigma = [1.0] * 4 + [grad] * 2, [1.0] * 4 + [sigma] * 2
  lines = metric_lines([0.3] * 6, [1.0] * 6, grad=grad, sigma=sigma)
  found = verdicts(lines)
  assert [v for v, _ in found] == [None] * 5 + [words] and found[-1][1] == 4
  assert verdicts(lines, **{off: 0.0})[-1][0] is None


def test_each_resolution_is_judged_by_its_own_history():
  low = metric_lines([0.3] * 6, [1.0] * 6, res=4)
  high = metric_lines([0.05] * 3, [20.0] * 3, res=8, start=1000, sigma=[9.0] * 3)
  assert verdicts(low + high)[-1][0] is None


def test_consecutive_non_finite_updates_stop_a_run():
  monitor = collapse_monitor.CollapseMonitor(CollapseConfig(max_skipped=3))
  reasons = [monitor.count_skipped({'skipped': x}) for x in (1, 2, 0, 1, 1, 1)]
  assert [t is not None for t in reasons] == [False] * 5 + [True]
  assert reasons[-1].startswith('3 iterations')


def test_diversity_is_that_within_rows():
  images = np.zeros((4, 2, 2, 1), np.uint8)
  images[2:] = 255  # rows differ, images of a row do not
  assert collapse_monitor.grid_diversity(images, 2) == 0
  images[[1, 3]] = 255 - images[[1, 3]]
  assert collapse_monitor.grid_diversity(images, 2) == pytest.approx(1)


def test_singular_values_are_those_of_the_weights():
  kernel = jax.random.normal(jax.random.key(0), (3, 3, 4, 6))
  params = {'block': {'conv': {'kernel': kernel}}}
  spectral = init_spectral(jax.random.key(1), params, ('kernel',), 3)
  _, after = spectral_scales(params, spectral, eps=1e-12, iterations=300)
  (found,) = collapse_monitor.singular_values(after).items()
  assert found[0] == 'block/conv'
  expected = np.linalg.svd(np.asarray(kernel).reshape(-1, 6), compute_uv=False)[:3]
  np.testing.assert_allclose(found[1], expected, rtol=1e-3)
  assert collapse_monitor.singular_values({}) == {}
