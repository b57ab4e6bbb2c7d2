"""Label vectors: read from tables, batched as float32, checked against the model."""

import json

import numpy as np
import pytest

from gan_jax import UserError, data
from tests.data.images import encode, random_image, write_files

N = 6


@pytest.fixture
def vectors(rng_seed):
  return np.random.default_rng(rng_seed).normal(0, 3, (N, 3)).round(4)


@pytest.fixture
def folder(tmp_path):
  rng = np.random.default_rng(0)
  images = {f'{i}.png': encode(random_image(rng, 4, 4, 3)) for i in range(N)}
  write_files(tmp_path / 'images', images)
  return tmp_path / 'images'


def opened(folder):
  return data.load_dataset(str(folder), res=4, channels=3)


def as_json(vectors):
  return json.dumps({'labels': [[f'{i}.png', v] for i, v in enumerate(vectors)]})


def as_columns(vectors):
  lines = [f'{i}.png;' + ';'.join(map(str, v)) for i, v in enumerate(vectors)]
  return '\n'.join(['file;Label 1;Label 2;Label 3', *lines])


def as_cells(vectors):
  lines = [f'{i}.png,"{json.dumps(v)}"' for i, v in enumerate(vectors)]
  return '\n'.join(['file,label', *lines])


@pytest.mark.parametrize(
  'table, write',
  [('dataset.json', as_json), ('labels.csv', as_columns), ('metadata.csv', as_cells)],
)
def test_vectors_from_tables_come_in_batches(folder, vectors, table, write):
  (folder / table).write_text(write(vectors.tolist()))
  dataset = opened(folder)
  assert dataset.has_vectors and dataset.n_classes == 3 and not dataset.counts
  assert 'vectors of 3 numbers' in dataset.origin
  batches = data.iterate_batches(
    dataset, shape=(2, 3), devices=(0, 1), n_devices=2, seed=1, start=0, flip=False
  )
  batch = next(batches)
  assert batch['labels'].shape == (2, 2, 3, 3) and batch['labels'].dtype == np.float32
  images = {dataset.examples[i][0].tobytes(): i for i in range(N)}
  found = [images[x.tobytes()] for x in batch['images'].reshape(12, 4, 4, 3)]
  labels = batch['labels'].reshape(12, 3)
  np.testing.assert_array_equal(labels, vectors[found].astype(np.float32))
  text = data.summarize(dataset, folder.parent / 'summary')
  assert 'labels: vectors of 3 numbers' in text


def test_another_vector_is_another_dataset(folder, vectors):
  (folder / 'dataset.json').write_text(as_json(vectors.tolist()))
  before = opened(folder).digests['labels']
  assert opened(folder).digests['labels'] == before
  vectors[2, 1] += 1
  (folder / 'dataset.json').write_text(as_json(vectors.tolist()))
  assert opened(folder).digests['labels'] != before


@pytest.mark.parametrize(
  'change, words',
  [
    ({2: [1.0, 2.0]}, r'label of 2.png is \[1.0, 2.0\], and .* vector of 3 numbers'),
    ({2: 'cat'}, 'label of 2.png is cat, and .* vector of 3 numbers: all labels must'),
    (
      {2: ['a', 'b', 'c']},
      'has the label .*: a class, a number or a name, or a vector',
    ),
    ({2: [1.0, float('nan'), 0.0]}, 'a vector of numbers is needed'),
    ({2: {'smile': 1}}, 'attributes by name are not read'),
    (dict.fromkeys(range(N), 0.5), r'label of 0.png is 0.5: .* label vectors, \[0.5\]'),
  ],
)
def test_labels_that_are_neither_classes_nor_vectors(folder, vectors, change, words):
  table = dict(enumerate(vectors.tolist())) | change
  (folder / 'dataset.json').write_text(as_json(table.values()))
  with pytest.raises(UserError, match=words):
    opened(folder)


def test_a_missing_number_in_a_column(folder, vectors):
  text = as_columns(vectors.tolist()).replace(str(vectors[1, 2]), 'n/a', 1)
  (folder / 'labels.csv').write_text(text)
  with pytest.raises(UserError, match="entry 2 has 'n/a' in the column 'Label 3'"):
    opened(folder)


def test_the_model_needs_as_many_numbers_and_labels_of_the_data(folder, vectors):
  (folder / 'dataset.json').write_text(as_json(vectors.tolist()))
  dataset = opened(folder)
  data.check_labels(dataset, 3)
  with pytest.raises(UserError, match='has 3 numbers in each label vector: set n_cl'):
    data.check_labels(dataset, 10)
  data.check_fake_labels(dataset, 'data', 3)
  data.check_fake_labels(dataset, 'uniform', 0)
  with pytest.raises(UserError, match="fake_labels is 'uniform', .*: set model.fake"):
    data.check_fake_labels(dataset, 'uniform', 3)
