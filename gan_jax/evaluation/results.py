"""Score files: JSON lines with protocols, and comparisons between them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gan_jax import UserError
from gan_jax.storage.json_lines import append_json_lines, read_json_lines

SCORES_FILE = 'evaluations.jsonl'  # in a workdir, one score per line


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


def _differences(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
  """'key value-of-a and value-of-b' for each key whose values differ.

  Data that were moved or copied have another name; earlier versions stored no `files`.
  """
  if 'files' in a and 'files' in b:
    ignored = {'data'} if a['files'] == b['files'] else set()
  else:
    ignored = {'files'}
  return [
    f'{key} {a.get(key)} and {b.get(key)}'
    for key in sorted({*a, *b} - ignored)
    if a.get(key) != b.get(key)
  ]
