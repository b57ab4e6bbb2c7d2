"""Measures whether generated digits show their labels. See README.md."""

import argparse
import csv
from pathlib import Path

import numpy as np
from sklearn.svm import SVC

from gan_jax import data


def nearest_other(images: np.ndarray, labels: np.ndarray) -> float:
  """Mean L2 distance of an image to the nearest other image of its class."""
  distances = []
  for label in np.unique(labels):
    x = images[labels == label]
    d = np.sqrt(((x[:, None] - x[None]) ** 2).sum(-1))
    np.fill_diagonal(d, np.inf)
    distances.append(d.min(1))
  return float(np.concatenate(distances).mean())


def main() -> None:
  p = argparse.ArgumentParser(description=__doc__)
  p.add_argument('--samples', required=True, help='.npz written by gan_jax.sample')
  p.add_argument('--out', default='', help='a .csv file')
  args = p.parse_args()
  with np.load(args.samples) as z:
    fakes, labels = z['images'], z['labels']
  real = data.load_dataset('digits', res=fakes.shape[1], channels=1).examples
  flat = lambda x: x.reshape(len(x), -1).astype(np.float32) / 255
  reals, truth = flat(real.images), np.asarray(real.labels)
  fakes = flat(fakes)
  # The classifier is trained on the first 1,200 digits and tested on the other 597.
  classifier = SVC(C=10).fit(reals[:1200], truth[:1200])
  on_real = (classifier.predict(reals[1200:]) == truth[1200:]).mean()
  on_fake = (classifier.predict(fakes) == labels).mean()
  # Equal numbers of each class: the distance to the nearest image decreases with n.
  n = min(np.bincount(truth).min(), np.bincount(labels, minlength=10).min())
  take = lambda y: np.concatenate([np.flatnonzero(y == c)[:n] for c in range(10)])
  r, f = take(truth), take(labels)
  spread_real = nearest_other(reals[r], truth[r])
  spread_fake = nearest_other(fakes[f], labels[f])
  row = {
    'samples': len(fakes),
    'accuracy_real': round(float(on_real), 4),
    'accuracy_fake': round(float(on_fake), 4),
    'neighbour_real': round(spread_real, 4),
    'neighbour_fake': round(spread_fake, 4),
    'diversity': round(spread_fake / spread_real, 4),
  }
  print('  '.join(f'{k}={v}' for k, v in row.items()))
  if args.out:
    with Path(args.out).open('w', newline='') as file:
      writer = csv.DictWriter(file, row.keys())
      writer.writeheader()
      writer.writerow(row)


if __name__ == '__main__':
  main()
