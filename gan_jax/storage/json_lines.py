"""JSON lines files, such as metrics.jsonl: one JSON object per line."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def read_json_lines(path: Path) -> list[dict[str, Any]]:
  """The JSON objects of a file; an empty list if the file does not exist.

  Lines that hold anything else are skipped: a killed process may leave half a line.
  """
  try:
    text = path.read_text(errors='replace')
  except FileNotFoundError:
    return []
  objects = []
  for line in text.split('\n'):
    try:
      value = json.loads(line)
    except (ValueError, RecursionError):
      continue
    if isinstance(value, dict):
      objects.append(value)
  return objects


def append_json_lines(path: Path, objects: Iterable[Mapping[str, Any]]) -> None:
  """Appends objects to a file, one line each; creates the file if necessary."""
  with path.open('a') as f:
    f.writelines(json.dumps(value) + '\n' for value in objects)
