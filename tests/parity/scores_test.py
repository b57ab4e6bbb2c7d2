"""PRD and linear separability against the original implementations.

The tests know kinds of files and keys, but no file names, sizes or seeds. Clusters and
support vector machines are scikit-learn's, in the originals and here.
"""

import json

import numpy as np
import pytest

from gan_jax.evaluation.metrics import prd, separability
from tests.parity.reference_files import error, kind_of, load, parametrize_files, report

KINDS = {'compute_prd': 'prd', 'linear_separability': 'separability'}
TOLERANCE = 1e-9


def pytest_generate_tests(metafunc):
  parametrize_files(metafunc, KINDS)


def curve_checks(name, z, curve):
  theirs = z[f'{name}/F8_F1over8']
  return {
    f'{name} precision': (error(curve.precision, z[f'{name}/precision']), TOLERANCE),
    f'{name} recall': (error(curve.recall, z[f'{name}/recall']), TOLERANCE),
    f'{name} F': (error(prd.f_scores(curve), theirs), TOLERANCE),
  }


def check_prd(z, meta):
  checks = {}
  for key in (k for k in z if k.endswith('/eval_dist')):
    name = key.removesuffix('/eval_dist')
    angles = len(z[f'{name}/precision'])
    curve = prd.prd_curve(z[key], z[f'{name}/ref_dist'], angles)
    checks |= curve_checks(name, z, curve)
  for key in (k for k in z if k.endswith('/labels_eval')):
    name = key.removesuffix('/labels_eval')
    clusters, angles = map(int, z[f'{name}/num_clusters_angles'])
    pairs = list(zip(z[key], z[f'{name}/labels_ref'], strict=True))
    curves = [prd.curve_of_labels(*pair, clusters, angles) for pair in pairs]
    checks |= curve_checks(name, z, prd.mean_curve(curves))
    found = error([prd.f_scores(x) for x in curves], z[f'{name}/F8_F1over8_per_run'])
    checks[f'{name} F of each run'] = found, TOLERANCE
    if same_scikit_learn(meta) and f'{name}/eval' in z:
      for run, pair in enumerate(pairs):
        features = z[f'{name}/eval'], z[f'{name}/ref']
        ours = prd.cluster(*features, clusters, meta['seed'] + run)
        checks[f'{name} labels of run {run}'] = max(map(error, ours, pair)), 0.0
  return checks


def same_scikit_learn(meta):
  """Other versions may draw other clusters from the same seed."""
  import sklearn

  return sklearn.__version__ == meta['versions']['sklearn']


def check_separability(z, meta):
  checks, logits = {}, []
  spaces = {'score_z': z['latents'], 'score_w': z['dlatents']}
  for key in sorted((k for k in z if k.endswith('/kept')), key=attribute_number):
    name, theirs = key.removesuffix('/kept'), z[key]
    logits.append(z[f'{name}/logits'][:, 0])
    probabilities = separability.predictions(logits[-1])
    found = error(probabilities, z[f'{name}/predictions'])
    checks[f'{name} predictions'] = found, TOLERANCE
    targets = separability.most_confident(probabilities, len(theirs))
    checks[f'{name} kept'] = error(targets.kept, theirs), 0.0
    checks[f'{name} targets'] = error(targets.classes, z[f'{name}/targets']), 0.0
    for space in ('latents', 'dlatents'):
      prefix = f'{name}/{space}'
      predicted = z[f'{prefix}/svm_pred'].astype(np.int64)
      joint = separability.joint_table(predicted, targets.classes)
      found = error(joint, z[f'{prefix}/joint_rows_pred_cols_target'])
      checks[f'{prefix} joint'] = found, TOLERANCE
      bits = z[f'{prefix}/conditional_entropy_bits']
      entropy = separability.conditional_entropy(joint)
      checks[f'{prefix} entropy'] = error(entropy, bits), TOLERANCE
      ours = separability.predict_linearly(z[space][targets.kept], targets.classes)
      checks[f'{prefix} SVM'] = error(ours, predicted), 0.0
  keep = lambda x: separability.most_confident(x, meta['num_keep'])
  scores = separability.separability(spaces, np.stack(logits, 1), keep)
  for name, score in scores.items():
    checks[name] = error(score, z[name]), TOLERANCE
  return checks


def attribute_number(key):
  return int(key.partition('/')[0].removeprefix('attr'))


def test_the_numbers_of_the_original(fixture_path, record_parity):
  pytest.importorskip('sklearn')
  z = load(fixture_path)
  meta = json.loads(str(z.pop('meta_json')))
  check = {'prd': check_prd, 'separability': check_separability}
  checks = check[kind_of(fixture_path, KINDS)](z, meta)
  report(f'scores {fixture_path.stem}', checks, record_parity)


def test_the_files_are_found(reference):
  kinds = {kind_of(p, KINDS) for p in reference.rglob('*.npz')}
  if not kinds & set(KINDS.values()):
    pytest.skip('this --reference holds no PRD and no separability')
  assert kinds >= set(KINDS.values())
