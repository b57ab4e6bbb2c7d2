"""Inception statistics of real images from files of pytorch-fid and clean-fid (.npz).

pytorch-fid and clean-fid store the mean and the covariance of the features as `mu` and
`sigma`; clean-fid's files for KID, which end in _kid.npz, store the features themselves
as `feats`. A file does not name its feature network: its number of features, their
signs and the name of the file tell those of other networks.
"""

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gan_jax import UserError
from gan_jax.evaluation.metrics import inception
from gan_jax.evaluation.metrics.feature_network import (
  NetworkStatistics,
)
from gan_jax.evaluation.metrics.feature_statistics import FeatureStatistics
from gan_jax.evaluation.protocol import MAX_FEATURE_ROWS
from gan_jax.runtime.urls import check_path
from gan_jax.storage.nested import fingerprint
from gan_jax.storage.npz import NPZ_ERRORS, read_npz

# How clean-fid and its users name files -> the value of --resizing.
_RESIZING = {
  r'legacy_?(tensorflow|tf)': 'tf1',
  r'legacy_?(pytorch|pyt)': 'torch',
  r'clean': 'clean-fid',
}


class StatisticsFile(NamedTuple):
  """Statistics of the real images that stand in place of a dataset."""

  name: str  # the files, joined by commas
  statistics: NetworkStatistics
  n: int | None  # images whose features are known, for kid and prdc; None without
  has_moments: bool  # mean and covariance, of an unknown number of images
  fingerprint: str  # of the arrays

  def stamp(self) -> dict[str, Any]:
    """What identifies the real images in the protocol of a score, as JSON."""
    return {'data': self.name, 'statistics': self.fingerprint}

  def check_metric(self, name: str, min_classes: int, needs_features: bool) -> None:
    """Raises a UserError if a metric of Inception's features needs more than this."""
    if min_classes:
      raise UserError(
        f'{name} needs the real images with their labels, and {self.name} holds '
        'statistics only: leave out --statistics.'
      )
    if needs_features and self.n is None:
      raise UserError(
        f'{name} needs the features of the real images, and {self.name} holds their '
        "mean and covariance only: take clean-fid's file that ends in _kid.npz, or "
        'leave out --statistics.'
      )


def read_statistics(paths: str, resizing: str) -> StatisticsFile:
  """Statistics from one file, or from those of clean-fid for FID and KID.

  Args:
    paths: one file or two, joined by commas.
    resizing: key of PREPROCESSING that generated images get.

  Raises:
    UserError: a missing or corrupted file, or statistics of another feature network or
      another way of resizing.
  """
  arrays: dict[str, np.ndarray] = {}
  for path in (Path(os.path.expanduser(check_path(x))) for x in paths.split(',')):
    _check_name(path, resizing)
    for name, x in _read(path).items():
      if name in arrays:
        raise UserError(
          f'--statistics={paths}: two files hold {name}; name one of them.'
        )
      arrays[name] = x
  rows = arrays.get('feats')
  features = FeatureStatistics(inception.DIM, MAX_FEATURE_ROWS)
  if rows is not None:
    features.update(rows)
  if 'mu' in arrays:
    features.set_moments(arrays['mu'], arrays['sigma'])
  return StatisticsFile(
    name=paths,
    statistics=NetworkStatistics(None, features),
    n=None if rows is None else len(rows),
    has_moments='mu' in arrays,
    fingerprint=fingerprint(arrays),
  )


def _check_name(path: Path, resizing: str) -> None:
  """Checks what tools say in the names of their files."""
  stem = path.stem.lower()
  if stem.endswith('inception_moments'):
    raise UserError(
      f"{path} holds moments of BigGAN-PyTorch, of torchvision's Inception-v3: fid "
      'takes the network of 2015, so compute the statistics with pytorch-fid or '
      'clean-fid.'
    )
  for pattern, needed in _RESIZING.items():
    if re.search(rf'(^|_){pattern}(_|fid|$)', stem):
      if needed != resizing:
        raise UserError(
          f'{path} holds statistics of images that were resized in another way than '
          f'--resizing={resizing}: take --resizing={needed}, which its name stands for.'
        )
      return


def _read(path: Path) -> dict[str, np.ndarray]:
  """mu and sigma in float64, or feats in float32."""
  try:
    with path.open('rb') as f:
      arrays = read_npz(f)
    names = ('mu', 'sigma') if {'mu', 'sigma'} <= {*arrays} else ('feats',)
    dtype = np.float32 if names == ('feats',) else np.float64
    found = {name: arrays[name].astype(dtype) for name in names if name in arrays}
  except OSError as error:
    raise UserError(f'--statistics={path}: {error.strerror}.') from error
  except NPZ_ERRORS as error:
    raise UserError(
      f'--statistics={path} is corrupted or no .npz file of pytorch-fid or clean-fid.'
    ) from error
  if not found:
    raise UserError(
      f'{path} holds {", ".join(sorted(arrays)) or "no arrays"}: statistics of '
      'pytorch-fid and clean-fid are mu and sigma, or feats.'
    )
  if not all(np.isfinite(x).all() for x in found.values()):
    raise UserError(f'{path} holds NaN or infinity: compute the statistics again.')
  if not _shapes_fit(**found):
    raise UserError(
      f'{path} holds no statistics: the shapes of its arrays do not fit: '
      f'{", ".join(f"{name} {x.shape}" for name, x in found.items())}.'
    )
  if 'sigma' in found and not _is_covariance(found['sigma']):
    raise UserError(
      f'{path} holds no statistics: sigma is not symmetric or has negative variances.'
    )
  _check_network(path, found['mu'] if 'mu' in found else found['feats'].mean(0))
  return found


def _shapes_fit(
  mu: np.ndarray | None = None,
  sigma: np.ndarray | None = None,
  feats: np.ndarray | None = None,
) -> bool:
  if feats is not None:
    return feats.ndim == 2 and len(feats) > 1
  assert mu is not None and sigma is not None
  return mu.ndim == 1 and sigma.shape == 2 * mu.shape


def _is_covariance(sigma: np.ndarray) -> bool:
  return bool(np.allclose(sigma, sigma.T) and (np.diag(sigma) >= 0).all())


def _check_network(path: Path, mean: np.ndarray) -> None:
  """Raises a UserError for the mean features of another network."""
  if len(mean) != inception.DIM:
    other = f'{len(mean)} features'
  elif mean.min() < -1e-6:
    other = f'features with negative means, such as {mean.min():.3g}'
  else:
    return
  raise UserError(
    f'{path} holds statistics of another feature network: {other}, where fid takes '
    f'{inception.DIM} of Inception-v3 (2015), whose means are not negative.'
  )
