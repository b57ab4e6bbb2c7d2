"""Does a direction change what images say? See README.md."""

import argparse
import csv
import dataclasses
from pathlib import Path

import gan_jax  # noqa: F401  (before jax: sets its XLA flag)

# isort: split
import jax
import numpy as np

from gan_jax import data
from gan_jax.config.workdir import read_config
from gan_jax.evaluation.metrics import small_network
from gan_jax.evaluation.metrics.feature_network import FeatureNetwork
from gan_jax.evaluation.metrics.transparency import composite_bytes
from gan_jax.evaluation.real_images import (
  dataset_stamp,
  read_batches,
  real_images_stamp,
  real_order,
)
from gan_jax.runtime.mesh import make_mesh
from gan_jax.sampling.generator import TrainedGenerator
from gan_jax.sampling.options import SamplingOptions
from gan_jax.storage.files import cache_folder


def load_classifier(workdir: Path) -> FeatureNetwork:
  """The small network of `fd_small`, trained on the run's data with its classes."""
  config = read_config(workdir)
  dataset = data.load_dataset(**config.source())

  def training_images() -> tuple[np.ndarray, np.ndarray]:
    order = real_order(len(dataset.examples), small_network.MAX_IMAGES)
    images, labels = zip(*read_batches(dataset, order, 256), strict=True)
    return composite_bytes(np.concatenate(images)), np.concatenate(labels)

  stamp = real_images_stamp(dataset, dataset_stamp(dataset, config.data.split))
  return small_network.load(
    training_images, dataset.n_classes, stamp, cache_folder(), make_mesh()
  )


def measure(
  classifier: FeatureNetwork, images: np.ndarray, labels: list[int]
) -> list[float]:
  """Mean brightness in [0, 255], and the mean probability of each label."""
  logits = classifier.extract(composite_bytes(images))[1]
  probabilities = np.asarray(jax.nn.softmax(logits, -1)).mean(0)
  return [float(images.mean()), *(float(probabilities[i]) for i in labels)]


def main() -> None:
  p = argparse.ArgumentParser(description=__doc__)
  p.add_argument('--workdir', type=Path, required=True)
  p.add_argument('--direction', required=True, help='name in directions.npz')
  p.add_argument('--strengths', default='-1,-0.5,0,0.5,1')
  p.add_argument('--classes', required=True, help='labels whose probability is shown')
  p.add_argument('--start', default='', help='label of all images; default: all labels')
  p.add_argument('--seeds', default='0-255')
  p.add_argument('--out', type=Path, required=True, help='a .csv file')
  args = p.parse_args()
  generator = TrainedGenerator(args.workdir)
  classifier = load_classifier(args.workdir)
  labels = [int(x) for x in args.classes.split(',')]
  options = SamplingOptions(seeds=args.seeds, classes=args.start)
  rows = []
  for strength in map(float, args.strengths.split(',')):
    moved = dataclasses.replace(options, direction=f'{args.direction}:{strength:g}')
    images = np.concatenate(list(generator.plan(moved).images))
    rows.append([strength, *measure(classifier, images, labels)])
    print(' '.join(f'{x:8.3f}' for x in rows[-1]), flush=True)
  args.out.parent.mkdir(parents=True, exist_ok=True)
  with args.out.open('w', newline='') as f:
    writer = csv.writer(f)
    names = [f'p({generator.class_names[i]})' for i in labels]
    writer.writerow(['strength', 'brightness', *names])
    writer.writerows([[f'{x:.4g}' for x in row] for row in rows])


if __name__ == '__main__':
  main()
