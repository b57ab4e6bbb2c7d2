"""How many images a second does one core feed? See README.md beside this file.

Each pipeline runs in a process of its own, pinned to one core; this file is also that
process, in whichever interpreter has the pipeline's packages.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

BATCH = 64


def make_photos(folder: Path, n: int) -> None:
  """n JPEGs of 500 x 375 with two labels, cut from scikit-learn's photographs."""
  from sklearn.datasets import load_sample_image

  rng = np.random.default_rng(0)
  photos = [Image.fromarray(load_sample_image(f'{x}.jpg')) for x in ('china', 'flower')]
  for i in range(n):
    path = folder / ('china', 'flower')[i % 2] / f'{i:05d}.jpg'
    path.parent.mkdir(parents=True, exist_ok=True)
    x, y = int(rng.integers(140)), int(rng.integers(52))
    photos[i % 2].crop((x, y, x + 500, y + 375)).save(path, quality=92)


def unpack(prepared: Path, res: int, folder: Path) -> None:
  """The very PNGs of a level as files, for readers that cannot read ArrayRecord."""
  import tensorflow_datasets as tfds

  builder = tfds.core.read_only_builder.builder_from_directory(
    prepared / f'{res}' / '1.0.0'
  )
  skip = {'image': tfds.decode.SkipDecoding()}
  for i, example in enumerate(builder.as_data_source('train', decoders=skip)):
    path = folder / f'{example["label"]}' / f'{i:05d}.png'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(example['image'])


def gan_jax_batches(path: Path, res: int):
  """Ours, of a folder or of a prepared set: batches of uint8 [64, res, res, 3]."""
  from gan_jax import data

  return data.batches(
    data.load(str(path.absolute()), res=res, channels=3),
    shape=(1, BATCH),
    devices=(0,),
    n_devices=1,
    seed=0,
    start=0,
    flip=True,
    threads=2,
  )


def torch_batches(path: Path, res: int):
  """torchvision's ImageFolder and transforms behind a DataLoader of one worker."""
  import torch
  from torchvision import datasets, transforms

  torch.set_num_threads(1)
  transform = transforms.Compose(
    [
      transforms.Resize(res),
      transforms.CenterCrop(res),
      transforms.RandomHorizontalFlip(),
      transforms.PILToTensor(),
    ]
  )
  loader = torch.utils.data.DataLoader(
    datasets.ImageFolder(path, transform),
    BATCH,
    shuffle=True,
    num_workers=1,
    persistent_workers=True,
    drop_last=True,
  )
  while True:
    yield from loader


def tf_batches(path: Path, res: int):
  """TFDS's ImageFolder.as_dataset, and tf.data for the rest."""
  import tensorflow as tf
  import tensorflow_datasets as tfds

  def fit(example):
    image = example['image']
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    side = tf.minimum(height, width)
    image = tf.image.resize_with_crop_or_pad(image, side, side)
    if res != side:
      image = tf.image.resize(image, (res, res), 'area')
    image = tf.image.random_flip_left_right(image)
    return tf.cast(tf.round(tf.cast(image, tf.float32)), tf.uint8), example['label']

  # ImageFolder wants a split above the labels.
  dataset = tfds.ImageFolder(path.parent).as_dataset(
    split=path.name, shuffle_files=True
  )
  dataset = dataset.repeat().shuffle(1000).map(fit, tf.data.AUTOTUNE)
  yield from dataset.batch(BATCH).prefetch(tf.data.AUTOTUNE).as_numpy_iterator()


READERS = {'gan_jax': gan_jax_batches, 'torch': torch_batches, 'tf': tf_batches}


def measure(reader: str, path: Path, res: int, seconds: float, core: int) -> float:
  """Images a second on one core, after two batches of warm-up."""
  os.sched_setaffinity(0, {core})
  batches = iter(READERS[reader](path, res))
  for _ in range(2):
    next(batches)
  n, start = 0, time.perf_counter()
  while (took := time.perf_counter() - start) < seconds:
    next(batches)
    n += BATCH
  return n / took


def main() -> None:
  p = argparse.ArgumentParser(description=__doc__)
  p.add_argument('--work', type=Path, required=True, help='folder for the pictures')
  p.add_argument('--photos', type=int, default=2000)
  p.add_argument('--seconds', type=float, default=20, help='for each measurement')
  p.add_argument('--repeats', type=int, default=3, help='rounds; the median counts')
  p.add_argument('--core', type=int, default=0)
  p.add_argument(
    '--interpreter',
    action='append',
    default=[],
    metavar='torch=PYTHON',
    help='who has torch and torchvision, or tensorflow and tensorflow_datasets (tf=)',
  )
  p.add_argument('--out', type=Path)
  p.add_argument('--one', help=argparse.SUPPRESS)
  args = p.parse_args()
  if args.one:
    reader, path, res = json.loads(args.one)
    speed = measure(reader, Path(path), res, args.seconds, args.core)
    print('images_per_s', speed)
    return
  interpreters = {'gan_jax': sys.executable}
  interpreters |= dict(text.split('=', 1) for text in args.interpreter)

  photos = args.work / 'photos' / 'train'
  if not photos.is_dir():
    make_photos(photos, args.photos)
  cases = []
  for res in (128, 256):
    prepared = args.work / f'prepared{res}'
    if not prepared.is_dir():
      options = [f'--res={res}', '--crop', '--upscale']
      subprocess.run(
        [sys.executable, '-m', 'gan_jax.prepare', photos, prepared, *options],
        check=True,
      )
    files = args.work / f'files{res}' / 'train'
    if not files.is_dir():
      unpack(prepared, res, files)
    for reader in interpreters:
      cases.append((reader, 'JPEG folder', photos, res))
      ours = reader == 'gan_jax'
      cases.append((reader, 'prepared', prepared if ours else files, res))
  speeds: dict[tuple, list[float]] = {case: [] for case in cases}
  # Rounds, so that a slow minute of the machine meets all of them.
  for _ in range(args.repeats):
    for case in cases:
      reader, _, path, res = case
      one = json.dumps([reader, str(path), res])
      options = [f'--seconds={args.seconds}', f'--core={args.core}', '--work=.']
      done = subprocess.run(
        [interpreters[reader], __file__, f'--one={one}', *options],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
      )
      speeds[case].append(float(done.stdout.split()[-1]))
  rows = [
    {
      'reader': reader,
      'source': source,
      'res': res,
      'images_per_s_per_core': round(float(np.median(found)), 1),
      'rounds': ' '.join(f'{x:.1f}' for x in found),
    }
    for (reader, source, _, res), found in speeds.items()
  ]
  out = sys.stdout
  if args.out:
    args.out.parent.mkdir(parents=True, exist_ok=True)
    out = args.out.open('w', newline='')
  writer = csv.DictWriter(out, list(rows[0]))
  writer.writeheader()
  writer.writerows(rows)


if __name__ == '__main__':
  main()
