"""Checks that a dataset fits the model, and that all hosts have the same copy."""

import hashlib

import jax
import numpy as np
from jax.experimental import multihost_utils

from gan_jax import UserError
from gan_jax.data.dataset import Dataset
from gan_jax.data.digests import identity
from gan_jax.data.summary import count_labels, evenly_spaced


def check_labels(dataset: Dataset, n_classes: int) -> None:
  """Checks that `dataset` has labels for a model with `n_classes` classes.

  Reads a sample of the labels if their counts are unknown.

  Raises:
    UserError: it has no labels, another number of classes, images of only one class,
      or labels out of range.
  """
  if n_classes == 0:
    return
  if dataset.n_classes == 0:
    raise UserError(
      f"The model has n_classes={n_classes}, but dataset '{dataset.name}' has no "
      'labels: set n_classes=0 or take a labeled dataset.'
    )
  kind = 'numbers in each label vector' if dataset.has_vectors else 'classes'
  if n_classes != dataset.n_classes:
    raise UserError(
      f"The model has n_classes={n_classes}, but dataset '{dataset.name}' has "
      f'{dataset.n_classes} {kind}: set n_classes={dataset.n_classes}, or 0 to '
      'ignore the labels.'
    )
  if dataset.has_vectors:
    return
  (present,) = np.nonzero(count_labels(dataset))
  if len(present) == 1:
    raise UserError(
      f'The model has n_classes={n_classes}, but all images of dataset '
      f"'{dataset.name}' are of one class, '{dataset.class_names[present[0]]}': set "
      'n_classes=0, or correct the labels (a folder has one sub-folder for each class).'
    )


def check_fake_labels(dataset: Dataset, fake_labels: str, n_classes: int) -> None:
  """Checks that fakes of a model with label vectors take theirs from the data.

  Raises:
    UserError: they would be uniform over classes, which there are none of.
  """
  if n_classes and dataset.has_vectors and fake_labels != 'data':
    raise UserError(
      f"model.fake_labels is '{fake_labels}', and the labels of dataset "
      f"'{dataset.name}' are vectors, not classes: set model.fake_labels=data."
    )


def check_hosts(dataset: Dataset) -> None:
  """Checks that all processes read the same dataset.

  Collective: all processes must call it. Each process reads its share of one global
  order; with different copies of the data the shares would overlap and leave out
  images. Compares the number of images, the digests that equal copies share, and the
  pixels of 16 images.

  Raises:
    UserError: two processes have different data. Raised on all processes.
  """
  if jax.process_count() == 1:
    return
  n_images = len(dataset.examples)
  state = dataset.class_names, dataset.counts, sorted(identity(dataset.digests).items())
  digest = hashlib.sha256(repr(state).encode())
  for i in evenly_spaced(n_images, 16).tolist():
    image, label = dataset.examples[i]
    digest.update(
      np.ascontiguousarray(image).tobytes() + str(np.asarray(label)).encode()
    )
  own = np.array([n_images, int.from_bytes(digest.digest()[:4])], np.uint32)
  rows = multihost_utils.process_allgather(own).tolist()
  for process, row in enumerate(rows):
    if row != rows[0]:
      raise UserError(
        f"Processes 0 and {process} read different data under '{dataset.name}' "
        f'({rows[0][0]:,} and {row[0]:,} images): give every host the same copy.'
      )
