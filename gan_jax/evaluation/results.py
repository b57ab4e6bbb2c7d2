"""Scores in files: a JSON line each with its protocol, and comparing them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gan_jax import UserError

LINES = 'evaluations.jsonl'  # of a workdir: a score a line


def append_scores(workdir: Path, lines: Sequence[dict[str, Any]], **about: Any) -> None:
  """Adds scores to a run: a line each, and one for all in its metrics.jsonl."""
  with (workdir / LINES).open('a') as f:
    f.writelines(json.dumps({**about, **line}) + '\n' for line in lines)
  values = {f'eval/{line["metric"]}': line['value'] for line in lines}
  with (workdir / 'metrics.jsonl').open('a') as f:
    f.write(json.dumps({'images': about['images'], **values}) + '\n')


def latest_scores(path: str | Path) -> dict[str, dict[str, Any]]:
  """The last line of each score in a workdir or a file of lines.

  Raises:
    UserError: there are none.
  """
  path = Path(path)
  path = path / LINES if path.is_dir() else path
  if not path.is_file():
    raise UserError(f'{path}: there are no scores; run gan_jax.evaluate there first.')
  try:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {line['metric']: line for line in lines}
  except (json.JSONDecodeError, KeyError, TypeError) as error:
    raise UserError(f'{path} does not hold scores, a JSON line each.') from error


def compare_scores(a: str | Path, b: str | Path) -> list[tuple[str, float, float]]:
  """The newest scores that two runs share: (name, of a, of b).

  Raises:
    UserError: none is shared, or one was taken by unlike protocols.
  """
  of_a, of_b = latest_scores(a), latest_scores(b)
  shared = [name for name in of_a if name in of_b]
  if not shared:
    raise UserError(f'{a} and {b} have no score in common.')
  for name in shared:
    ours, theirs = of_a[name]['stamp'], of_b[name]['stamp']
    unlike = [
      f'{key} {ours.get(key)} and {theirs.get(key)}'
      for key in sorted({*ours, *theirs})
      if ours.get(key) != theirs.get(key)
    ]
    if unlike:
      raise UserError(
        f'{name} of {a} and of {b} cannot be compared: {"; ".join(unlike)}.'
      )
  return [(name, of_a[name]['value'], of_b[name]['value']) for name in shared]
