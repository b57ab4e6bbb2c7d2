"""Score files: appended lines, the latest scores, and comparisons."""

import json

import pytest

from gan_jax import UserError
from gan_jax.evaluation.results import append_scores, compare_scores, latest_scores

RECORD = {'metric': 'fid', 'value': 1.0, 'best': 'min', 'stamp': {'n': 1}}


def test_the_latest_score_counts(tmp_path):
  for step, value in ((1, 9.0), (2, 5.0)):
    record = {**RECORD, 'value': value}
    append_scores(tmp_path, [record], images=8 * step, checkpoint=step)
  with (tmp_path / 'evaluations.jsonl').open('a') as f:
    f.write('{"metric": "fid", "val')  # a killed process
  assert latest_scores(tmp_path) == {
    'fid': {'images': 16, 'checkpoint': 2, **RECORD, 'value': 5.0}
  }
  lines = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  assert [json.loads(line) for line in lines] == [
    {'images': 8, 'eval/fid': 9.0},
    {'images': 16, 'eval/fid': 5.0},
  ]


def test_only_equal_protocols_compare(tmp_path):
  a, b, c = (tmp_path / name for name in 'abc')
  a.write_text(json.dumps(RECORD))
  b.write_text(json.dumps({**RECORD, 'value': 2.0}))
  c.write_text(json.dumps({**RECORD, 'stamp': {'n': 2, 'ema': True}}))
  assert compare_scores(a, b) == [('fid', 1.0, 2.0)]
  with pytest.raises(UserError, match='cannot be compared: ema None and True; n 1 and'):
    compare_scores(a, c)


def test_data_may_have_moved_between_two_scores(tmp_path):
  a, b = tmp_path / 'a', tmp_path / 'b'
  stamp = {'data': './old', 'content': 'c', 'files': 'f', 'n': 1}

  def compare(**changes):
    a.write_text(json.dumps({**RECORD, 'stamp': stamp}))
    other = {k: v for k, v in (stamp | changes).items() if v is not None}
    b.write_text(json.dumps({**RECORD, 'stamp': other}))
    return compare_scores(a, b)

  assert compare(data='/new') == [('fid', 1.0, 1.0)]
  with pytest.raises(UserError, match='data ./old and /new; files f and g'):
    compare(data='/new', files='g')
  assert compare(files=None) == [('fid', 1.0, 1.0)]  # of an earlier version
  with pytest.raises(UserError, match='data ./old and /new'):
    compare(files=None, data='/new')


def test_real_images_play_no_role_for_path_lengths(tmp_path):
  a, b = tmp_path / 'a', tmp_path / 'b'
  stamp = {'data': 'x', 'split': 'train', 'content': 'c', 'files': 'f', 'n': 4,
           'settings': '1%-99%, step 1e-4'}  # fmt: skip
  a.write_text(json.dumps({**RECORD, 'stamp': stamp}))
  now = {'n': 4, 'settings': stamp['settings'], 'crop': 'none', 'noise': 'constant'}
  b.write_text(json.dumps({**RECORD, 'stamp': now}))
  assert compare_scores(a, b) == [('fid', 1.0, 1.0)]
  b.write_text(json.dumps({**RECORD, 'stamp': {**now, 'crop': 'face'}}))
  with pytest.raises(UserError, match='crop none and face'):
    compare_scores(a, b)


def test_files_without_common_scores_are_errors(tmp_path):
  a, b, c = (tmp_path / name for name in 'abc')
  a.write_text(json.dumps(RECORD))
  b.write_text(json.dumps({**RECORD, 'metric': 'is'}))
  c.write_text('{}')
  with pytest.raises(UserError, match='no scores; run'):
    latest_scores(tmp_path)
  with pytest.raises(UserError, match='no score in common'):
    compare_scores(a, b)
  with pytest.raises(UserError, match='does not hold scores'):
    compare_scores(a, c)


@pytest.mark.parametrize(
  'earlier, present',
  [
    (
      '100 subsets of 1000 or all, cubic kernel, unbiased',
      {'settings': 'cubic kernel, unbiased', 'subsets': 100, 'subset_size': 500,
       'subset_seed': 2020, 'mirror': False},
    ),
    (
      '10 splits in order, logits without bias',
      {'settings': 'logits without bias', 'splits': 10, 'shuffle_seed': None,
       'mirror': False},
    ),
    (
      '128 patches of at most 8192 images, 512 directions',
      {'settings': '128 patches of each image, 512 directions', 'images': 500,
       'mirror': False},
    ),
    (
      'consecutive pairs of at most 10000 images',
      {'settings': 'consecutive pairs', 'images': 900, 'mirror': False},
    ),
    ('n - 1, float64', {'settings': 'n - 1, float64', 'mirror': False}),
  ],
)  # fmt: skip
def test_scores_of_earlier_versions_still_compare(tmp_path, earlier, present):
  a, b = tmp_path / 'a', tmp_path / 'b'
  stamp = {'n': 900, 'reals': 500}
  a.write_text(json.dumps({**RECORD, 'stamp': {**stamp, 'settings': earlier}}))
  now = {**stamp, **present, 'protocol': 'progan'}
  b.write_text(json.dumps({**RECORD, 'stamp': now}))
  assert compare_scores(a, b) == [('fid', 1.0, 1.0)]
  b.write_text(json.dumps({**RECORD, 'stamp': {**now, 'mirror': True}}))
  with pytest.raises(UserError, match='mirror False and True'):
    compare_scores(a, b)
