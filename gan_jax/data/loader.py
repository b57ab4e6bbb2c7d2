"""One endless global order of images, of which each host reads its share."""

import functools
import sys
from collections.abc import Iterator

import grain
import numpy as np

from gan_jax import UserError
from gan_jax.data.dataset import Dataset


def iterate_batches(
  dataset: Dataset,
  *,
  shape: tuple[int, int],
  devices: tuple[int, ...],
  n_devices: int,
  seed: int,
  start: int,
  flip: bool,
  threads: int = 8,
) -> Iterator[dict[str, np.ndarray]]:
  """Endless batches for one host, cut from one global order of images.

  Which image stands at a position of the global order, and whether it is mirrored, is
  a function of (dataset, seed, position) alone. Every epoch is a new permutation. With
  shape = (k, b) a step consumes the next k * n_devices * b positions, and micro-batch
  m, device j, image i takes slot (m * n_devices + j) * b + i of them.

  `start`, the number of images already seen by all hosts together, is the whole state
  of the iterator: a run resumes from it, exactly, on any devices and with any shape.

  Args:
    shape: (k micro-batches per step, b images per device and micro-batch).
    devices: this host's positions, in 0..n_devices-1, in the device mesh.
    n_devices: devices of all hosts together.
    seed: 0..2**64-1.
    start: position of slot 0 of the first batch; any integer >= 0.
    flip: mirror each image left-right with probability 1/2.
    threads: readers; a thread fills one device's micro-batch at a time.

  Yields:
    'images' uint8 [len(devices), k, b, res, res, channels] and
    'labels' int32 [len(devices), k, b].

  Raises:
    UserError: `devices` repeats one or has one that is not there; and when reading,
      Corrupt.
  """
  k, b = shape
  n_rows = len(devices) * k
  if len(set(devices)) < len(devices) or not set(devices) <= set(range(n_devices)):
    raise UserError(
      f'This host would read for devices {devices}: different ones of 0 to '
      f'{n_devices - 1} are needed.'
    )

  # Grain's own shuffle and random_map took 22 us an image, all under the interpreter's
  # lock. One word per image and epoch does both: sorting by the words shuffles, their
  # lowest bits mirror. NumPy promises to keep the raw stream of Philox as it is. The
  # cost is 9 bytes an image for each epoch in hand, and 0.1 us to sort it.
  @functools.lru_cache(maxsize=4)
  def epoch(number):
    key = np.array([seed, number], np.uint64)
    words = np.random.Philox(key=key).random_raw(len(dataset.examples))
    return np.argsort(words), words & 1 == 1

  def read(row):
    step, row = divmod(row, n_rows)
    device, micro = divmod(row, k)
    first = start + ((step * k + micro) * n_devices + devices[device]) * b
    images, labels = None, np.empty(b, np.int32)
    for i in range(b):
      number, place = divmod(first + i, len(dataset.examples))
      order, mirrored = epoch(number)
      image, labels[i] = dataset.examples[int(order[place])]
      if images is None:
        images = np.empty((b, *image.shape), np.uint8)
      if flip and mirrored[place]:
        # NumPy reverses three long rows of numbers faster than many of three numbers.
        for channel in range(image.shape[-1]):
          images[i, ..., channel] = image[:, ::-1, channel]
      else:
        images[i] = image
    return {'images': images, 'labels': labels}

  def assemble(rows):
    if n_rows == 1:
      return {key: x[None, None] for key, x in rows[0].items()}
    stacked = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
    return {key: x.reshape(len(devices), k, *x.shape[1:]) for key, x in stacked.items()}

  # The next step is read while this one trains; deeper buffers only cost memory.
  options = grain.ReadOptions(
    num_threads=threads, prefetch_buffer_size=max(threads, 2 * n_rows)
  )
  rows = grain.MapDataset.range(sys.maxsize).map(read).to_iter_dataset(options)
  return iter(rows.batch(n_rows, batch_fn=assemble))
