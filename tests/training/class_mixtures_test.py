"""Mixtures of classes: how they are written, and where classes are in a network."""

import numpy as np
import pytest

from gan_jax import UserError
from gan_jax.models.biggan import BigGAN
from gan_jax.models.progan import ProGAN
from gan_jax.models.stylegan import StyleGAN
from gan_jax.training.class_mixtures import (
  ClassAxis,
  class_axes,
  mix,
  parse_mixtures,
)

NAMES = ('cat', 'dog', 'a+b', '2*c')
GROWING = dict(res=4, n_classes=3, g_widths=(4, 4), d_widths=(4, 4), dim_z=5)
BIGGAN = dict(
  res=16, n_classes=3, dim_z=6, g_widths=(1,) * 3, d_widths=(1,) * 3, g_ch=4, d_ch=4
)


@pytest.mark.parametrize(
  ('entry', 'row'),
  [
    ('1', [0, 1, 0, 0]),
    ('cat', [1, 0, 0, 0]),
    ('0.75*cat + 0.25*dog', [0.75, 0.25, 0, 0]),
    ('3*cat+dog', [0.75, 0.25, 0, 0]),
    ('0-3', [0.25] * 4),
    ('a+b', [0, 0, 1, 0]),
    ('2*c', [0, 0, 0, 1]),
    ('DOG+1', [0, 1, 0, 0]),
  ],
)
def test_an_entry_is_a_class_or_a_sum(entry, row):
  np.testing.assert_allclose(parse_mixtures([entry], 1, 4, NAMES), [row])


def test_one_entry_is_for_all_classes():
  found = parse_mixtures(['1'], 3, 2, ())
  np.testing.assert_array_equal(found, [[0, 1]] * 3)


@pytest.mark.parametrize(
  ('entries', 'sentence'),
  [
    (['0', '1'], 'finetune.classes has 2 entries: model.n_classes=3 needs 3, or one'),
    (['cta'], "finetune.classes: cta: no class is named 'cta' (did you mean 'cat'?)"),
    (['7'], 'finetune.classes: 7: classes are 0-3.'),
    (
      ['-1*cat'],
      "finetune.classes has the entry '-1*cat': a class of the source",
    ),
    (['x*cat+dog'], "finetune.classes has the entry 'x*cat+dog': a class of the"),
    (['nan*cat'], "finetune.classes has the entry 'nan*cat': a class of the source"),
    (['cat+'], "finetune.classes: : no class is named ''"),
  ],
)
def test_mistakes_are_one_sentence(entries, sentence):
  with pytest.raises(UserError) as error:
    parse_mixtures(entries, 3, 4, NAMES)
  assert str(error.value).startswith(sentence), error.value


@pytest.mark.parametrize(
  ('gan', 'axes'),
  [
    (
      BigGAN(**BIGGAN, shared_dim=4),
      {
        'g/params/shared/embedding': (0, 0),
        'd/params/embed/embedding': (0, 0),
        'd/spectral/embed/u': (1, 0),
      },
    ),
    (
      ProGAN(**GROWING),
      {
        'g/params/dense/kernel': (0, 5),
        'd/params/dense1/kernel': (1, 1),
        'd/params/dense1/bias': (1, 1),
      },
    ),
    (
      StyleGAN(**GROWING, dim_w=4, mapping_layers=1),
      {
        'g/params/mapping/embedding': (0, 0),
        'd/params/dense1/kernel': (1, 0),
        'd/params/dense1/bias': (1, 0),
      },
    ),
  ],
)
def test_where_the_classes_are(gan, axes):
  assert class_axes(gan) == axes


def test_an_array_is_mixed_along_its_classes(rng_seed):
  x = np.random.default_rng(rng_seed).normal(size=(5, 4)).astype(np.float32)
  mixtures = np.asarray([[0, 0, 1], [0.5, 0.5, 0]], np.float32)
  rows = mix(x.T, mixtures, ClassAxis(1, 2)).T
  np.testing.assert_array_equal(rows[:3], x[[0, 1, 4]])  # as they are, to the bit
  np.testing.assert_allclose(rows[3], (x[2] + x[3]) / 2, rtol=1e-6)
