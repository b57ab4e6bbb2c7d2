"""Statistics: cached under a hash of their protocol, gathered from processes."""

import dataclasses
import logging

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from gan_jax.evaluation.metrics.feature_network import NetworkStatistics
from gan_jax.evaluation.metrics.feature_statistics import FeatureStatistics
from gan_jax.evaluation.metrics.inception_score import InceptionScore
from gan_jax.evaluation.protocol import EvaluationProtocol
from gan_jax.evaluation.statistics import (
  RealStatistics,
  StatisticsCollector,
  gather_statistics,
)


class Unreadable:
  """A dataset that must not be read."""

  def __len__(self):
    return 1797

  def __getitem__(self, i):
    pytest.fail('the dataset is read again')


def real_statistics(dataset, cache, **changes):
  protocol = EvaluationProtocol(num=128, **{'reals': 256, **changes})
  protocol = protocol.resolve('digits', 1797, devices=1)
  collector = StatisticsCollector({}, protocol, progress=False)
  return RealStatistics(dataset, {'data': 'digits'}, collector, cache)


def test_real_statistics_are_cached_under_their_protocol(digits, tmp_path, caplog):
  first = real_statistics(digits, tmp_path)
  expected = first.get(['patches'])['patches'].descriptors()
  path = first.path('patches')
  assert list(tmp_path.iterdir()) == [path]
  unreadable = dataclasses.replace(digits, examples=Unreadable())
  cached = real_statistics(unreadable, tmp_path).get(['patches'])['patches']
  np.testing.assert_array_equal(cached.descriptors()[0], expected[0])
  assert real_statistics(digits, tmp_path, reals=200).path('patches') != path
  # A corrupted file is replaced.
  path.write_bytes(path.read_bytes()[:1000])
  with caplog.at_level(logging.WARNING):
    again = real_statistics(digits, tmp_path).get(['patches'])['patches']
  assert f'{path} is corrupted' in caplog.text
  np.testing.assert_array_equal(again.descriptors()[0], expected[0])


def test_all_processes_compute_what_the_cache_of_one_lacks(
  digits, tmp_path, monkeypatch
):
  real_statistics(digits, tmp_path).get(['patches'])
  reads = []

  class Counted(Unreadable):
    def __getitem__(self, i):
      reads.append(i)
      return digits.examples[i]

  def gather(own):  # the other process lacks everything
    return np.stack([own, np.ones_like(own) if own.dtype == bool else own])

  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.setattr(multihost_utils, 'process_allgather', gather)
  statistics = real_statistics(
    dataclasses.replace(digits, examples=Counted()), tmp_path
  )
  statistics.get(['patches'])
  assert len(reads) == 128  # this process's share
  statistics.get(['patches'])
  assert len(reads) == 256  # the other one still lacks them


def test_statistics_of_processes_are_merged_in_order(monkeypatch):
  rows = np.arange(40, dtype=np.float32).reshape(10, 4)
  features = FeatureStatistics(4, max_rows=12)
  score = InceptionScore([0, 20], 3)
  features.update(rows)
  score.update(rows[:, :3])
  # Two processes with the same images.
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  twice = lambda x: np.stack([x, x])
  monkeypatch.setattr(multihost_utils, 'process_allgather', twice)
  merged = gather_statistics(NetworkStatistics(None, features, score))
  both = np.concatenate([rows, rows])
  assert merged.features.n == 20
  np.testing.assert_array_equal(merged.features.rows, both[:12])
  np.testing.assert_allclose(merged.features.covariance, np.cov(both, rowvar=False))
  expected = InceptionScore([0, 20], 3)
  expected.update(both[:, :3])
  assert merged.inception_score.result() == pytest.approx(expected.result())
