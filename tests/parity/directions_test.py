"""Closed-form factorization of official weights, against the original code (SeFa).

Files of --reference are chosen by the function that they record, so a new seed or
another choice of layers needs no change here.
"""

import json

import numpy as np

from gan_jax.directions import finding
from tests.parity.progressive_test import Networks
from tests.parity.reference_files import kind_of, load, parametrize_files, report

KINDS = {'factorize_weight': 'sefa'}


def pytest_generate_tests(metafunc):
  parametrize_files(metafunc, KINDS)


def networks_of(root, name):
  (path,) = root.rglob(f'{name}_vars.npz')
  return Networks(path.parent, name)


def test_the_numbers_of_the_original(fixture_path, reference, record_parity):
  z = load(fixture_path)
  names = json.loads(str(z['meta_json']))['weights']
  checks = {}
  for key in (k for k in z if k.endswith('/eigenvalues_sorted_f64')):
    case = key.removesuffix('/eigenvalues_sorted_f64')
    name = case.split('/')[0]
    assert name in names
    net = networks_of(reference, name)
    kernels = net.gan.latent_kernels(net.g)
    assert len(kernels) == len(names[name])
    found = finding.factorize([kernels[i] for i in z[f'{case}/layers']])
    want = z[key]
    error = np.abs(found.values - want).max() / np.abs(want).max()
    checks[f'{case} eigenvalues'] = error, 1e-9
    # Vectors of equal eigenvalues are not unique.
    distinct = np.abs(np.diff(want, prepend=np.inf, append=-np.inf)) > 1e-6
    unique = distinct[:-1] & distinct[1:]
    cosines = (found.vectors * z[f'{case}/boundaries_sorted_f64']).sum(1)
    checks[f'{case} vectors'] = np.abs(1 - np.abs(cosines))[unique].max(), 1e-6
    assert unique.sum() >= len(want) // 3
  assert len(checks) >= 2
  report(f'{fixture_path.stem}.npz', checks, record_parity)


def test_the_files_are_found(reference):
  found = {kind_of(p, KINDS) for p in reference.rglob('*.npz')}
  assert {*KINDS.values()} <= found
