"""Label vectors of samples: from files, as text, from Python."""

import re

import numpy as np
import pytest

from gan_jax import UserError
from gan_jax.sampling.drawing import draw_latents
from gan_jax.sampling.label_vectors import format_label_vectors, read_label_vectors
from gan_jax.sampling.options import SamplingOptions
from gan_jax.sampling.planning import GeneratorSpec, plan_images

ROWS = np.array([[0.5, -2.0], [1e-7, 0.1]], np.float32)


def test_files_and_text_are_read_the_same(tmp_path):
  np.save(tmp_path / 'rows.npy', ROWS.astype(np.float64))
  (tmp_path / 'rows.csv').write_text('0.5,-2\n1e-7, 0.1\n')
  for text in ('0.5,-2;1e-7,0.1', tmp_path / 'rows.npy', tmp_path / 'rows.csv'):
    np.testing.assert_array_equal(read_label_vectors(str(text), 2), ROWS)
  np.testing.assert_array_equal(read_label_vectors(format_label_vectors(ROWS), 2), ROWS)


@pytest.mark.parametrize(
  'text, words',
  [
    ('0.5,x', '--labels=0.5,x: that is no table of numbers; give a file .npy'),
    ('1,2;3', '--labels=1,2;3: that is no table of numbers'),
    ('1,2,3', '--labels=1,2,3: the numbers are 1 x 3, and this model takes rows of 2.'),
    ('1,nan', '--labels=1,nan: at least one row of finite numbers is needed'),
    ('missing.npy', '--labels=missing.npy: No such file or directory; give a file'),
  ],
)
def test_mistakes_are_one_sentence(text, words):
  with pytest.raises(UserError, match=re.escape(words)):
    read_label_vectors(text, 2)


def test_vectors_are_assigned_in_turn_or_by_row():
  spec = GeneratorSpec(n_classes=2)
  plan = plan_images(SamplingOptions(seeds='0-2', labels='0.5,-2;1e-7,0.1'), spec)
  _, classes = draw_latents(plan, 3, np.inf, dim_z=4, n_classes=2)
  np.testing.assert_array_equal(classes, ROWS[[0, 1, 0]])
  options = SamplingOptions(seeds='0-2', labels='0.5,-2;1e-7,0.1', grid=True)
  plan = plan_images(options, spec)
  _, classes = draw_latents(plan, 6, np.inf, dim_z=4, n_classes=2)
  np.testing.assert_array_equal(classes, ROWS[[0, 0, 0, 1, 1, 1]])
  with pytest.raises(UserError, match='--classes and --labels exclude each other'):
    SamplingOptions(classes='1', labels='1,2')
  with pytest.raises(UserError, match='--labels: this model has no classes'):
    plan_images(SamplingOptions(labels='1,2'), GeneratorSpec())
  with pytest.raises(UserError, match='--labels=.*: 2 labels are assigned in turn'):
    plan_images(SamplingOptions(seeds='3', labels='1,2;3,4'), spec)
