"""Shares of processes, and the order and fingerprint of real images."""

import dataclasses
import os

import jax
import numpy as np

from gan_jax import data
from gan_jax.data.dataset import InMemoryExamples
from gan_jax.evaluation.real_images import (
  dataset_stamp,
  flipped,
  process_share,
  read_batches,
  real_images_stamp,
  real_order,
)
from tests.data.images import write_image_folder


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


def test_half_of_the_images_are_flipped_whatever_their_order(digits):
  flips = flipped(len(digits.examples))
  assert 0.45 < flips.mean() < 0.55
  order = np.arange(40)[::-1]
  ((images, _),) = read_batches(digits, order, 40, mirror=True)
  for i, image in zip(order, images, strict=True):
    original, _ = digits.examples[int(i)]
    np.testing.assert_array_equal(image, original[:, ::-1] if flips[i] else original)
  assert 0 < flips[:40].sum() < 40


def test_content_depends_on_pixels_and_labels(digits):
  images, labels = digits.examples.images, digits.examples.labels
  changed = images.copy()
  changed[0, 0, 0] += 1
  contents = {
    dataset_stamp(
      dataclasses.replace(digits, examples=InMemoryExamples(*examples)), 'train'
    )['content']
    for examples in ((images, labels), (changed, labels), (images, labels[::-1]))
  }
  assert len(contents) == 3
  assert dataset_stamp(digits, 'train')['content'] in contents


def test_stamps_cover_every_file_and_the_cache_every_edit(tmp_path):
  folder = tmp_path / 'pets'
  write_image_folder(folder, 200, 4)

  def stamps(path):
    dataset = data.load_dataset(str(path), res=4, channels=3)
    score = dataset_stamp(dataset, 'train')
    return score, real_images_stamp(dataset, score)

  score, cached = stamps(folder)
  moved_score, moved_cached = stamps(folder.rename(tmp_path / 'moved'))
  assert moved_cached == cached  # statistics of moved images are found
  assert moved_score == {**score, 'data': str(tmp_path / 'moved')}
  path = tmp_path / 'moved' / 'dog' / '101.png'  # none of the 64 images of `content`
  os.utime(path, (1, 1))
  assert stamps(tmp_path / 'moved')[0] == moved_score
  assert stamps(tmp_path / 'moved')[1] != cached
  with path.open('ab') as file:
    file.write(b'\0')
  longer = stamps(tmp_path / 'moved')[0]
  assert longer['content'] == score['content'] and longer['files'] != score['files']
