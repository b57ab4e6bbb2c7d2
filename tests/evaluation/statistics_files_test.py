"""Statistics of pytorch-fid and clean-fid: what is read, and what is refused."""

import numpy as np
import pytest

from gan_jax import UserError
from gan_jax.evaluation.metrics import METRICS, inception
from gan_jax.evaluation.metrics.feature_network import NetworkStatistics
from gan_jax.evaluation.metrics.feature_statistics import FeatureStatistics
from gan_jax.evaluation.protocol import EvaluationProtocol
from gan_jax.evaluation.statistics_files import read_statistics

DIM = 6


@pytest.fixture(autouse=True)
def few_features(monkeypatch):
  monkeypatch.setattr(inception, 'DIM', DIM)


@pytest.fixture
def rows(rng_seed):
  """Features of 40 images, none of them negative, as after a ReLU."""
  return np.random.default_rng(rng_seed).exponential(size=(40, DIM)).astype('f4')


def write(path, **arrays):
  np.savez(path, **arrays)
  return str(path)


def moments(rows):
  return {'mu': rows.mean(0, dtype='f8'), 'sigma': np.cov(rows, rowvar=False)}


def statistics_of(rows):
  features = FeatureStatistics(DIM, len(rows))
  features.update(rows)
  return NetworkStatistics(None, features)


def test_distances_to_a_file_are_those_to_its_images(rows, tmp_path):
  fake, real = statistics_of(1.5 * rows[::-1] + 0.1), statistics_of(rows)
  protocol = EvaluationProtocol(kid_subset_size=20)
  measure = lambda name, a: METRICS[name].measure(a, fake, protocol)
  first = write(tmp_path / 'pets.npz', **moments(rows))
  given = read_statistics(first, 'torch')
  assert (given.n, given.has_moments) == (None, True)
  expected = measure('fid', real)['fid']
  assert expected > 0.1
  assert measure('fid', given.statistics)['fid'] == pytest.approx(expected, rel=1e-6)
  second = write(tmp_path / 'pets_clean_custom_na_kid.npz', feats=rows)
  features = read_statistics(second, 'clean-fid')
  assert (features.n, features.has_moments) == (40, False)
  assert measure('fid', features.statistics)['fid'] == pytest.approx(expected)
  assert measure('kid', features.statistics) == measure('kid', real)
  both = read_statistics(f'{first},{second}', 'clean-fid')
  assert both.n == 40 and measure('kid', both.statistics) == measure('kid', real)
  assert len({given.fingerprint, features.fingerprint, both.fingerprint}) == 3
  assert both.stamp() == {'data': f'{first},{second}', 'statistics': both.fingerprint}
  with pytest.raises(UserError, match='two files hold mu; name one of them'):
    read_statistics(f'{first},{first}', 'torch')


def test_what_statistics_cannot_give_is_said(rows, tmp_path):
  given = read_statistics(write(tmp_path / 'pets.npz', **moments(rows)), 'torch')
  given.check_metric('fid', 0, False)
  with pytest.raises(UserError, match='kid needs the features .*_kid.npz'):
    given.check_metric('kid', 0, True)
  with pytest.raises(UserError, match='intra_fid needs the real images with their lab'):
    given.check_metric('intra_fid', 1, False)


@pytest.mark.parametrize(
  'name, change, words',
  [
    ('a', lambda m: {'mu': m['mu'][:4], 'sigma': m['sigma'][:4, :4]}, 'another feature '
     'network: 4 features, where fid takes 6 of Inception-v3'),
    ('a', lambda m: {**m, 'mu': m['mu'] - 9}, 'network: features with negative means'),
    ('a', lambda m: {'feats': np.ones((5, 3))}, 'another feature network: 3 features'),
    ('a', lambda m: {**m, 'sigma': m['sigma'][:4]}, r'not fit: mu \(6,\), sigma \(4'),
    ('a', lambda m: {**m, 'mu': m['mu'] * np.nan}, 'holds NaN or infinity'),
    ('a', lambda m: {**m, 'mu': np.array(['x'] * 6)}, 'is corrupted or no .npz file'),
    ('a', lambda m: {**m, 'sigma': -m['sigma']}, 'has negative variances'),
    ('a', lambda m: {**m, 'sigma': np.tri(6)}, 'sigma is not symmetric'),
    ('a', lambda m: {'mean': m['mu']}, 'holds mean: statistics of pytorch-fid and'),
    ('a', lambda m: {'mu': np.array([None])}, 'is corrupted or no .npz file'),
    ('I128_inception_moments', lambda m: m, "of torchvision's Inception-v3: fid takes"),
    ('ffhq_clean_trainfull_256', lambda m: m, 'take --resizing=clean-fid, which its'),
    ('ffhq_legacy_tensorflow_train_256', lambda m: m, 'take --resizing=tf1'),
    ('FFHQ_256_CleanFID_0', lambda m: m, 'take --resizing=clean-fid'),
  ],
)  # fmt: skip
def test_other_files_are_refused_in_one_sentence(name, change, words, rows, tmp_path):
  path = write(tmp_path / f'{name}.npz', **change(moments(rows)))
  with pytest.raises(UserError, match=words) as caught:
    read_statistics(path, 'torch')
  assert path in str(caught.value) and '\n' not in str(caught.value)


def test_names_that_fit_and_missing_files(rows, tmp_path):
  legacy = write(tmp_path / 'ffhq_legacy_pytorch_test_256.npz', **moments(rows))
  assert read_statistics(legacy, 'torch').n is None
  cleaned = write(tmp_path / 'cleaned_pets.npz', **moments(rows))  # no tool's name
  assert read_statistics(cleaned, 'torch').n is None
  with pytest.raises(UserError, match='nowhere.npz: No such file'):
    read_statistics(str(tmp_path / 'nowhere.npz'), 'torch')
  (tmp_path / 'text.npz').write_text('mu')
  with pytest.raises(UserError, match='text.npz is corrupted or no .npz file'):
    read_statistics(str(tmp_path / 'text.npz'), 'torch')
