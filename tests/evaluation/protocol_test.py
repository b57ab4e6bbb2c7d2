"""Evaluation protocols: defaults, numbers, and mistakes."""

import numpy as np
import pytest

from gan_jax import UserError
from gan_jax.evaluation.protocol import EvaluationProtocol


def test_numbers_of_images_default_to_the_dataset():
  protocol = EvaluationProtocol(batch=30).resolve('digits', 1797, devices=8)
  assert (protocol.num, protocol.reals, protocol.batch) == (1797, 1797, 32)
  assert EvaluationProtocol().resolve('big', 10**6, devices=1).num == 50_000
  few = EvaluationProtocol(num=3, seed=2).resolve('digits', 1797, devices=1)
  np.testing.assert_array_equal(few.seeds, np.array([2, 3, 4], np.uint32))
  with pytest.raises(UserError, match='--reals=9: digits has 8 real images'):
    EvaluationProtocol(reals=9).resolve('digits', 8, devices=1)


@pytest.mark.parametrize(
  'values, words',
  [
    (dict(truncation=0.0), '--truncation=0.0: it must be above 0'),
    (dict(psi=float('nan')), '--psi=nan: it must be above 0'),
    (dict(batch=0), '--batch=0'),
    (dict(standing=-1), '--standing=-1: it must not be negative'),
    (dict(num=-1), '--num=-1: it must not be negative'),
  ],
)
def test_values_out_of_range_are_errors(values, words):
  with pytest.raises(UserError, match=words):
    EvaluationProtocol(**values)
