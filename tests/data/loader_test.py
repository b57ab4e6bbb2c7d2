"""The global order of images: on any hosts and shapes, after a kill, and pinned."""

import hashlib
import itertools
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gan_jax import UserError, data, prepare
from tests.data.images import NumberedExamples, write_image_folder


def global_order(
  steps, *, n=250, hosts=((0,),), shape=(1, 4), seed=0, start=0, flip=True, threads=2
):
  """(labels, flipped) at the positions that all hosts together read in `steps`."""
  k, b = shape
  n_devices = sum(map(len, hosts))
  labels = np.full((steps, k, n_devices, b), -1)
  flipped = np.zeros(labels.shape, bool)
  for devices in hosts:
    stream = data.iterate_batches(
      data.Dataset('numbered', NumberedExamples(n)),
      shape=shape,
      devices=devices,
      n_devices=n_devices,
      seed=seed,
      start=start,
      flip=flip,
      threads=threads,
    )
    for step, batch in enumerate(itertools.islice(stream, steps)):
      assert batch['images'].shape == (len(devices), k, b, 2, 2, 1)
      assert batch['images'].dtype == np.uint8
      assert batch['labels'].dtype == np.int32
      for row, device in enumerate(devices):
        labels[step, :, device] = batch['labels'][row]
        left = batch['images'][row, :, :, 0, 0, 0]
        right = batch['images'][row, :, :, 0, 1, 0]
        np.testing.assert_array_equal(np.maximum(left, right), batch['labels'][row])
        flipped[step, :, device] = left > 0
  return labels.ravel(), flipped.ravel()


@pytest.mark.parametrize(
  ('hosts', 'shape', 'steps', 'threads'),
  [
    (((0, 1, 2, 3),), (1, 6), 20, 0),
    (((0, 1), (2, 3)), (3, 2), 20, 8),
    (((0,), (1,), (2,), (3,)), (2, 5), 12, 3),
    (((0, 3), (2, 1)), (1, 24), 5, 1),
    (((1,), (0, 2)), (4, 1), 40, 8),
  ],
)
def test_global_order_is_the_same_on_any_hosts_and_shapes(hosts, shape, steps, threads):
  labels, flipped = global_order(480, shape=(1, 1), threads=0)
  got = global_order(steps, hosts=hosts, shape=shape, threads=threads)
  np.testing.assert_array_equal(got[0], labels)
  np.testing.assert_array_equal(got[1], flipped)


@pytest.mark.parametrize('start', [1, 77, 249, 250, 1001])
def test_start_continues_the_same_order(start):
  labels, flipped = global_order(300)
  got = global_order(8, hosts=((0,), (1,)), shape=(2, 3), start=start)
  np.testing.assert_array_equal(got[0], labels[start : start + 96])
  np.testing.assert_array_equal(got[1], flipped[start : start + 96])


def test_epochs_are_different_permutations():
  labels, flipped = global_order(250)
  epochs = labels.reshape(4, 250)
  for epoch in epochs:
    np.testing.assert_array_equal(np.sort(epoch), np.arange(250))
  for a, b in itertools.combinations([np.arange(250), *epochs], 2):
    assert (a == b).sum() < 10  # 1 is expected of independent permutations
  # Image 0 cannot show a flip, and is left out.
  flips = np.stack([m[np.argsort(e)] for m, e in zip(flipped.reshape(4, 250), epochs)])
  assert abs(flips[:, 1:].mean() - 0.5) < 0.06
  assert all(
    abs((a == b).mean() - 0.5) < 0.12
    for a, b in itertools.combinations(flips[:, 1:], 2)
  ), 'the flip of an image must not repeat from epoch to epoch'


def test_seed_and_flip():
  labels, flipped = global_order(100, n=100)
  again, unflipped = global_order(100, n=100, flip=False)
  np.testing.assert_array_equal(again, labels)
  assert flipped.any() and not unflipped.any()
  other, other_flipped = global_order(100, n=100, seed=1)
  assert (other == labels).mean() < 0.1
  assert abs((other_flipped == flipped).mean() - 0.5) < 0.12


def test_order_is_pinned():
  labels, flipped = global_order(3, n=10, seed=7)
  assert (labels.tolist(), flipped.astype(int).tolist()) == (
    [8, 4, 1, 6, 3, 2, 7, 5, 9, 0, 3, 9],
    [0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0],
  ), 'old runs would no longer resume on the images that they would have seen'


def test_a_dataset_smaller_than_a_batch_repeats():
  labels, _ = global_order(2, n=3, shape=(2, 6), flip=False)
  np.testing.assert_array_equal(np.sort(labels.reshape(-1, 3)), [[0, 1, 2]] * 8)


def test_devices_that_do_not_exist_are_refused():
  for devices in ((0, 0), (0, 3), (-1,)):
    with pytest.raises(UserError, match=r'devices .* in 0 to \d are needed'):
      global_order(1, hosts=(devices, (1,)))


def test_killed_at_any_step_a_run_resumes_with_the_same_batches(tmp_path, rng_seed):
  """On 1, 2 and 4 hosts, from a prepared set at a lower level, by real processes."""
  rng = np.random.default_rng(rng_seed)
  write_image_folder(tmp_path / 'pets', n=50)
  folder = str(tmp_path / 'set')
  prepare.main([str(tmp_path / 'pets'), folder, '--shard_images=7'])
  seed = int(rng.integers(2**32))
  dataset = data.load_dataset(folder, res=4, channels=3)
  words = [
    np.random.Philox(key=np.array([seed, e], np.uint64)).random_raw(50)
    for e in range(9)
  ]
  order = np.concatenate([np.argsort(w) for w in words])
  flips = np.concatenate([w & 1 for w in words])

  def expected(position):
    image, label = dataset.examples[int(order[position])]
    image = image[:, ::-1] if flips[position] else image
    return f'{position} {label} {hashlib.sha1(image.tobytes()).hexdigest()}'

  program = Path(__file__).parent / 'programs' / 'stream_batches.py'
  start = 0
  for hosts, shape in (
    (((0, 1, 2, 3),), (1, 3)),
    (((0, 1), (2, 3)), (2, 2)),
    (((3,), (0,), (2,), (1,)), (1, 4)),
  ):
    arguments = dict(
      folder=folder, seed=seed, start=start, hosts=hosts, shape=shape, factor=4
    )
    process = subprocess.Popen(
      [sys.executable, program, json.dumps(arguments)],
      stdout=subprocess.PIPE,
      text=True,
    )
    per_step = shape[0] * shape[1] * 4
    steps = int(rng.integers(1, 6))
    for position in range(start, start + steps * per_step):
      assert process.stdout.readline().strip() == expected(position)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    start += steps * per_step  # number of images seen: all that a checkpoint holds
