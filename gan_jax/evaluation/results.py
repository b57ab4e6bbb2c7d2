"""Score files: JSON lines with protocols, and comparisons between them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gan_jax import UserError
from gan_jax.storage.json_lines import append_json_lines, read_json_lines

SCORES_FILE = 'evaluations.jsonl'  # in a workdir, one score per line

Stamp = Mapping[str, Any]

_PATH_SETTINGS = '1%-99%, step 1e-4'  # of ppl
# What earlier versions stored as the settings of a metric -> what is stored today.
_EARLIER_SETTINGS: dict[str, Callable[[Stamp], Stamp]] = {
  '100 subsets of 1000 or all, cubic kernel, unbiased': lambda stamp: {
    'settings': 'cubic kernel, unbiased',
    'subsets': 100,
    'subset_size': min(1000, stamp['n'], stamp['reals']),
    'subset_seed': 2020,
  },
  '10 splits in order, logits without bias': lambda stamp: {
    'settings': 'logits without bias',
    'splits': 10,
    'shuffle_seed': None,
  },
  '128 patches of at most 8192 images, 512 directions': lambda stamp: {
    'settings': '128 patches of each image, 512 directions',
    'images': min(8192, stamp['n'], stamp['reals']),
  },
  'consecutive pairs of at most 10000 images': lambda stamp: {
    'settings': 'consecutive pairs',
    'images': min(10_000, stamp['n']),
  },
  _PATH_SETTINGS: lambda stamp: {
    'settings': _PATH_SETTINGS,
    'crop': 'none',
    'noise': 'constant',
  },
}


def append_scores(
  workdir: Path, records: Sequence[dict[str, Any]], *, images: int, checkpoint: int
) -> None:
  """Adds scores to a run's score file, and their values to its metrics.jsonl.

  Args:
    records: of `Evaluator.evaluate`.
    images: number of training images seen.
    checkpoint: training step of the weights.
  """
  state = {'images': images, 'checkpoint': checkpoint}
  append_json_lines(workdir / SCORES_FILE, [{**state, **x} for x in records])
  values = {f'eval/{record["metric"]}': record['value'] for record in records}
  append_json_lines(workdir / 'metrics.jsonl', [{'images': images, **values}])


def latest_scores(path: str | Path) -> dict[str, dict[str, Any]]:
  """The last record of each score in a workdir or a score file.

  Raises:
    UserError: the file does not exist or holds no scores.
  """
  path = Path(path)
  path = path / SCORES_FILE if path.is_dir() else path
  if not path.is_file():
    raise UserError(f'{path}: no scores; run gan_jax.evaluate on this run first.')
  records = [x for x in read_json_lines(path) if {'metric', 'value', 'stamp'} <= {*x}]
  if not records:
    raise UserError(f'{path} does not hold scores, one JSON object per line.')
  return {record['metric']: record for record in records}


def compare_scores(a: str | Path, b: str | Path) -> list[tuple[str, float, float]]:
  """The latest scores that two runs have in common: (name, value of a, value of b).

  Raises:
    UserError: no score in common, or the protocols of one differ.
  """
  scores_a, scores_b = latest_scores(a), latest_scores(b)
  common = [name for name in scores_a if name in scores_b]
  if not common:
    raise UserError(f'{a} and {b} have no score in common.')
  for name in common:
    differences = _differences(scores_a[name]['stamp'], scores_b[name]['stamp'])
    if differences:
      raise UserError(
        f'{name} of {a} and of {b} cannot be compared: {"; ".join(differences)}.'
      )
  return [(name, scores_a[name]['value'], scores_b[name]['value']) for name in common]


def _present_stamp(stamp: Stamp) -> Stamp:
  """A stamp with the keys that earlier versions did not store."""
  translate = _EARLIER_SETTINGS.get(stamp.get('settings', ''))
  added = dict(translate(stamp)) if translate else {}
  settings = {'settings': added.pop('settings')} if added else {}
  mirror = {'mirror': False} if 'reals' in stamp else {}
  return {**mirror, **added, **stamp, **settings}


def _differences(a: Stamp, b: Stamp) -> list[str]:
  """'key value-of-a and value-of-b' for each key whose values differ.

  Data that were moved or copied have another name; earlier versions stored no `files`.
  The name of a protocol is no difference, since all its settings are in the stamp.
  """
  a, b = _present_stamp(a), _present_stamp(b)
  ignored = {'protocol'}
  if a.get('settings') == _PATH_SETTINGS:  # real images play no role
    ignored |= {'data', 'split', 'content', 'files'}
  elif 'files' in a and 'files' in b:
    ignored |= {'data'} if a['files'] == b['files'] else set()
  else:
    ignored |= {'files'}
  return [
    f'{key} {a.get(key)} and {b.get(key)}'
    for key in sorted({*a, *b} - ignored)
    if a.get(key) != b.get(key)
  ]
