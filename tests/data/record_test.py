"""What a run records of its data, and the words for what has changed."""

import json

import numpy as np
import pytest

from gan_jax import data
from gan_jax.data.dataset import InMemoryExamples


def dataset(n=4, classes=('cat', 'dog'), **digests):
  examples = InMemoryExamples(np.zeros((n, 2, 2, 1), np.uint8), np.zeros(n, np.int32))
  digests = {'names': 'a', 'sizes': 'b', 'labels': 'c', 'version': 'd', **digests}
  return data.Dataset('pets', examples, classes, digests=digests)


@pytest.mark.parametrize(
  'now, words',
  [
    (dataset(), []),
    (dataset(version='x'), []),  # moved or copied
    (dataset(5, names='x'), ['4 -> 5 images']),
    (dataset(classes=('dog', 'cat')), ['order of the classes: cat, dog -> dog, cat']),
    (
      dataset(3, classes=('ape', 'dog')),
      ['4 -> 3 images', 'lost classes: cat, new classes: ape'],
    ),
    (dataset(classes=()), ['lost classes: cat, dog']),
    (
      dataset(classes=('cat', 'dog', *'abcdefg')),
      ['new classes: a, b, c, d, e, 2 more'],
    ),
    (dataset(names='x'), ['the names or the order of the images']),
    (
      dataset(sizes='x', labels='y'),
      ['the sizes of the image files', 'the labels of the images'],
    ),
  ],
)
def test_changes_are_named(now, words):
  record = json.loads(json.dumps(data.make_record(dataset())))
  assert data.find_changes(record, now) == words
  assert data.is_comparable(record, now)


@pytest.mark.parametrize('record', [{}, {'images': 4}, {'classes': ['cat', 'dog']}])
def test_runs_of_earlier_versions_recorded_less(record):
  assert data.find_changes(record, dataset()) == []
  assert not data.is_comparable(record, dataset())
