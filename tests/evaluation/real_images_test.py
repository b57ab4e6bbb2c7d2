"""Shares of processes, and the order and fingerprint of real images."""

import dataclasses

import jax
import numpy as np

from gan_jax.data.dataset import InMemoryExamples
from gan_jax.evaluation.real_images import (
  dataset_fingerprint,
  process_share,
  read_batches,
  real_order,
)


def test_shares_of_processes_join_to_the_stream(monkeypatch):
  seeds = np.arange(300, dtype=np.uint32)
  shares = []
  for index in range(3):
    monkeypatch.setattr(jax, 'process_count', lambda: 3)
    monkeypatch.setattr(jax, 'process_index', lambda i=index: i)
    shares.append(process_share(seeds, 64))
  np.testing.assert_array_equal(np.concatenate(shares), seeds)
  assert [len(share) for share in shares] == [64, 128, 108]


def test_batches_follow_the_order(digits):
  order = real_order(len(digits.examples), 10)
  np.testing.assert_array_equal(order, real_order(len(digits.examples), 10))
  batches = list(read_batches(digits, order, 4))
  assert [len(images) for images, _ in batches] == [4, 4, 2]
  labels = np.concatenate([labels for _, labels in batches])
  np.testing.assert_array_equal(labels, [digits.examples[int(i)][1] for i in order])


def test_fingerprint_depends_on_images_and_labels(digits):
  images, labels = digits.examples.images, digits.examples.labels
  changed = images.copy()
  changed[0, 0, 0] += 1
  fingerprints = {
    dataset_fingerprint(
      dataclasses.replace(digits, examples=InMemoryExamples(*examples))
    )
    for examples in ((images, labels), (changed, labels), (images, labels[::-1]))
  }
  assert len(fingerprints) == 3 and dataset_fingerprint(digits) in fingerprints
