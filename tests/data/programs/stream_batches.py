"""Prints 'position label sha1' of each image of the global order, until it is killed.

Its argument is JSON: folder, seed, start, hosts (the devices of each), shape, factor.
"""

import hashlib
import json
import sys

from gan_jax import data


def main(folder, seed, start, hosts, shape, factor):
  dataset = data.load_dataset(folder, res=16, channels=3).downsampled(factor)
  n_devices = sum(map(len, hosts))
  streams = [
    data.iterate_batches(
      dataset,
      shape=tuple(shape),
      devices=tuple(devices),
      n_devices=n_devices,
      seed=seed,
      start=start,
      flip=True,
      threads=2,
    )
    for devices in hosts
  ]
  position = start
  while True:
    rows = {}  # device -> its images and labels
    for devices, stream in zip(hosts, streams):
      batch = next(stream)
      for row, device in enumerate(devices):
        rows[device] = batch['images'][row], batch['labels'][row]
    # In the order of the positions: micro-batch, device, image.
    for micro_batch in range(shape[0]):
      for device in range(n_devices):
        images, labels = rows[device]
        for image, label in zip(images[micro_batch], labels[micro_batch]):
          digest = hashlib.sha1(image.tobytes()).hexdigest()
          print(position, label, digest, flush=True)
          position += 1


if __name__ == '__main__':
  main(**json.loads(sys.argv[1]))
