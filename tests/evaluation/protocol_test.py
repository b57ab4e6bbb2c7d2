"""Evaluation protocols: defaults, numbers, and mistakes."""

import numpy as np
import pytest

from gan_jax import UserError
from gan_jax.evaluation.protocol import PROTOCOLS, EvaluationProtocol


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
    (dict(ppl_samples=-1), '--ppl_samples=-1: it must not be negative'),
    (dict(kid_subsets=0), '--kid_subsets=0: it must be above 0'),
    (dict(is_splits=0), '--is_splits=0: it must be above 0'),
    (dict(kid_subset_size=1), '--kid_subset_size=1: it must be at least 2 and at most'),
    (dict(kid_seed=-1), '--kid_seed=-1: it must be at least 0'),
    (dict(is_seed=2**32), '--is_seed=4294967296: it must be at least 0 and at most'),
    (dict(swd_images=0), '--swd_images=0: it must be at least 1'),
    (dict(msssim_images=1), '--msssim_images=1: it must be at least 2'),
  ],
)
def test_values_out_of_range_are_errors(values, words):
  with pytest.raises(UserError, match=words):
    EvaluationProtocol(**values)


def test_named_protocols_have_the_settings_of_their_tools():
  named = {name: EvaluationProtocol.named(name, {}) for name in PROTOCOLS}
  table = {
    name: (p.num, p.reals, p.mirror, p.resizing, p.is_splits, p.is_seed)
    for name, p in named.items()
  }
  assert table == {
    'stylegan': (50_000, 50_000, 'trained', 'tf1', 10, None),
    'progan': (50_000, 50_000, 'trained', 'tf1', 10, None),
    'biggan': (50_000, 0, 'never', 'tf1', 10, None),
    'pytorch-fid': (0, 0, 'never', 'torch', 10, None),
    'clean-fid': (50_000, 0, 'never', 'clean-fid', 10, None),
    'torch-fidelity': (0, 0, 'never', 'tf1', 10, 2020),
  }
  stylegan, progan = named['stylegan'], named['progan']
  assert (stylegan.ppl_samples, stylegan.separability_images) == (100_000, 200_000)
  assert (stylegan.ppl_crop, stylegan.ppl_noise) == ('face', 'fresh')
  assert (progan.swd_images, progan.msssim_images) == (16_384, 20_000)
  for name in ('clean-fid', 'torch-fidelity'):
    p = named[name]
    assert (p.kid_subsets, p.kid_subset_size, p.kid_seed) == (100, 1000, 2020)
  # The defaults of today; other values change the scores of everyone.
  default = EvaluationProtocol()
  assert (default.mirror, default.resizing) == ('trained', 'torch')
  assert (default.ppl_samples, default.separability_images) == (0, 0)
  assert default.ppl_crop == 'none'
  assert default.ppl_noise == 'constant'


def test_a_named_protocol_takes_fewer_images_where_the_data_have_no_more():
  protocol = EvaluationProtocol.named('stylegan', {'batch': 30})
  resolved = protocol.resolve('faces', 30_000, devices=1)
  assert (resolved.reals, resolved.num, resolved.batch) == (30_000, 50_000, 30)
  assert resolved.ppl_samples == 100_000 and len(resolved.path_seeds) == 100_000
  assert resolved.generator_stamp()['protocol'] == 'stylegan'
  assert 'protocol' not in EvaluationProtocol().generator_stamp()


@pytest.mark.parametrize(
  'name, given, words',
  [
    ('stylegan', dict(resizing='torch'), '--resizing=torch contradicts --protocol=sty'),
    (
      'clean-fid',
      dict(num=9),
      '--num=9 .*=clean-fid, which takes 50000: leave out one',
    ),
    (
      'biggan',
      dict(reals=9),
      '--reals=9 contradicts --protocol=biggan, which takes all',
    ),
    ('progan', dict(is_seed=1), '--is_seed=1 .* which takes the images in order'),
    ('progan', dict(psi=0.7), '--psi=0.7 .*, which takes untruncated images'),
    ('stylegan', dict(ema=False), '--raw contradicts .*, which takes the EMA weights'),
    (
      'stylegn',
      {},
      "--protocol=stylegn .did you mean 'stylegan'.*: allowed are styleg",
    ),
  ],
)
def test_settings_that_contradict_a_named_protocol_are_errors(name, given, words):
  with pytest.raises(UserError, match=words):
    EvaluationProtocol.named(name, given, {'ema': '--raw'})


def test_settings_that_a_named_protocol_leaves_open_or_shares_are_taken():
  protocol = EvaluationProtocol.named('pytorch-fid', {'num': 9, 'resizing': 'torch'})
  assert (protocol.num, protocol.resizing, protocol.name) == (9, 'torch', 'pytorch-fid')
