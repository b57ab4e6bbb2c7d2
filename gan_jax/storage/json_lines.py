"""JSON lines: one JSON object a line, as metrics.jsonl holds them."""

import contextlib
import json
from pathlib import Path
from typing import Any


def read_json_lines(path: Path) -> list[dict[str, Any]]:
  """JSON lines up to the first that is not whole, as a kill may leave the last."""
  lines: list[dict[str, Any]] = []
  with contextlib.suppress(FileNotFoundError, ValueError):
    for text in path.read_text().splitlines():
      lines.append(json.loads(text))
  return lines
