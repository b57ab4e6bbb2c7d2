"""Sampling options: their flags and the way back, and ranges of numbers."""

import numpy as np
import pytest

from gan_jax import UserError, sample
from gan_jax.runtime.flags import parsed_flags
from gan_jax.sampling.options import SamplingOptions, format_ranges, parse_ranges


@pytest.mark.parametrize(
  'options',
  [
    SamplingOptions(),
    SamplingOptions(seeds='1,2', psi=0.5, truncation=0.7, grid=True, only=3, res=4),
    SamplingOptions(
      mix='1-3', mix_layers='coarse+fine,2-3', noise='off', noise_strength=0.5
    ),
    SamplingOptions(
      interpolate='w',
      frames=3,
      truncated_layers=0,
      standing=0,
      columns=3,
      noise_layers='coarse,4-5',
    ),
  ],
)
def test_options_and_flags_are_inverse(options):
  args = sample.make_parser().parse_args(options.flags)
  assert parsed_flags(SamplingOptions, args) == options


@pytest.mark.parametrize(
  'change, words',
  [
    ({'batch': 0}, '--batch=0: it must be above 0'),
    ({'noise': 'loud'}, '--noise=loud: allowed are own, stored, off'),
    ({'interpolate': 'x'}, '--interpolate=x: allowed are z, w, class'),
    ({'noise_seed': -1}, '--noise_seed=-1: allowed are 0 to 4294967295'),
    ({'num': 0}, '--num=0: it must be above 0'),
    ({'num': -5}, '--num=-5: it must be above 0'),
    ({'num': 2**31}, '--num=2147483648: allowed are 0 to 16777216'),
    ({'frames': 0, 'interpolate': 'z'}, '--frames=0: it must be above 0'),
    ({'columns': -1}, '--columns=-1: it must be above 0'),
    ({'psi': float('inf')}, '--psi=inf: a finite number is needed'),
    ({'truncated_layers': -1}, '--truncated_layers=-1: allowed are 0'),
  ],
)
def test_values_out_of_range(change, words):
  with pytest.raises(UserError, match=words):
    SamplingOptions(**change)


@pytest.mark.parametrize(
  'text, numbers',
  [('0-3,8', [0, 1, 2, 3, 8]), ('5', [5]), ('7,6,4-5', [7, 6, 4, 5])],
)
def test_ranges_are_parsed_and_formatted(text, numbers):
  assert parse_ranges(text, 'seeds') == numbers
  assert format_ranges(numbers) == text
  assert format_ranges(iter(numbers)) == text
  assert format_ranges(numbers[0]) == str(numbers[0])


@pytest.mark.parametrize(
  'text',
  ['', '-1', 'a', '4294967296', '5-3', '1,', '\u00b2', '0-99999999', '9' * 5000],
)
def test_invalid_ranges(text):
  with pytest.raises(UserError, match=f'--seeds={text}: '):
    parse_ranges(text, 'seeds')


def test_a_descending_range_is_named():
  with pytest.raises(UserError, match='9-7 runs from high to low; write 7-9, or'):
    parse_ranges('1,9-7', 'seeds')


@pytest.mark.parametrize('one', [3, np.int64(3), np.array(3), [3], (x for x in [3])])
def test_one_number_of_any_kind(one):
  assert format_ranges(one) == '3'


@pytest.mark.parametrize('wrong', [1.0, 'a', [[1, 2]], [None], np.array([0.5])])
def test_what_is_no_integer(wrong):
  with pytest.raises(UserError, match='seeds: .* is not an integer'):
    format_ranges(wrong)
