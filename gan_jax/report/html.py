"""The page: a story and its pictures as one file of HTML that needs no network."""

import base64
import hashlib
import html
import io
import json
import os
import re
import time
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gan_jax import UserError
from gan_jax.report.run_summary import POINTS, names, summarize_run
from gan_jax.storage.files import atomic_path

PAGE = 'report.html'
ROOM = 8_000_000  # bytes of pictures inside a page
SIDE = 1280  # pixels, of a picture that had to be made smaller to be mailed


class ReportImages:
  """Puts pictures into a page as far as there is room, and links the rest.

  A page that is to leave its folder cannot link: there, what is too large is made
  smaller, and what still has no room is left out.
  """

  def __init__(self, folder: Path | None, room: int = ROOM):
    """
    Args:
      folder: where the page lies, beside its pictures; None: anywhere.
      room: bytes of pictures inside.
    """
    self._folder, self._room = folder, room

  def source(self, path: Path, most: int) -> str | None:
    """What an `img` is to show, or None; inside, it takes `most` bytes or less."""
    try:
      content, kind = path.read_bytes(), 'png'
    except OSError:
      return None
    if len(content) > most and self._folder is None:
      content, kind = smaller(content), 'webp'
    if content and len(content) <= min(most, self._room):
      self._room -= len(content)
      return f'data:image/{kind};base64,{base64.b64encode(content).decode()}'
    if self._folder is None:
      return None
    return urllib.parse.quote(os.path.relpath(path, self._folder))

  def fill(self, entries: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """The entries with their `src` a text; those that cannot be shown are left out."""
    found: dict[int, str | None] = {}
    for i in spread(len(entries)):
      found[i] = self.source(entries[i]['src'], most)
    return [e | {'src': found[i]} for i, e in enumerate(entries) if found[i]]


def smaller(content: bytes) -> bytes:
  """A picture as WebP, no side beyond `SIDE`; an empty one where it is none."""
  from PIL import Image

  try:
    with Image.open(io.BytesIO(content)) as image:
      page = image.convert('RGB')
  except (OSError, Image.DecompressionBombError):
    return b''
  page.thumbnail((SIDE, SIDE))
  out = io.BytesIO()
  page.save(out, 'webp', quality=85)
  return out.getvalue()


def spread(n: int) -> list[int]:
  """0..n-1, so that the first few of them lie evenly: last, first, middle, ..."""
  order = dict.fromkeys([n - 1, 0] if n else [])
  step = n
  while step > 1:
    step = -(-step // 2)
    order |= dict.fromkeys(range(0, n, step))
  return list(order)


def render(workdirs: Sequence[Path], folder: Path | None) -> str:
  """The page of a run, or of several side by side.

  Args:
    workdirs: the runs.
    folder: where the page is to lie; None: anywhere, without its pictures.

  Raises:
    UserError: one is no run.
  """
  runs = [summarize_run(Path(workdir)) for workdir in workdirs]
  pictures = ReportImages(folder)
  for run, name in zip(runs, names(workdirs), strict=True):
    run['name'] = name
    room = ROOM // len(runs)
    run['pictures'] = pictures.fill(run['pictures'], room // 4)
    run['sheets'] = pictures.fill(run['sheets'], room // 4)
  now = time.time()
  about = f'Made anew by: python -m gan_jax.report {" ".join(map(str, workdirs))}'
  told = {
    'runs': runs,
    'time': int(now),
    'written': time.strftime('%Y-%m-%d %H:%M', time.localtime(now)),
    'about': about,
    'thinned': any(run['lines'] > POINTS for run in runs),
  }
  parts = Path(__file__).parent / 'static'
  library = (parts / 'uplot' / 'uPlot.iife.min.js').read_text()
  script = (parts / 'report.js').read_text()
  allowed = ' '.join(f"'sha256-{digest(text)}'" for text in (library, script))
  policy = (
    f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
    "img-src 'self' data: file:; base-uri 'none'; form-action 'none'"
  )
  pieces = {
    'policy': policy,
    'title': html.escape(' and '.join(run['name'] for run in runs)),
    'style': (parts / 'uplot' / 'uPlot.min.css').read_text()
    + (parts / 'report.css').read_text(),
    'story': inert(told),
    'library': library,
    'script': script,
  }
  skeleton = (parts / 'report.html').read_text()
  return re.sub(r'\{\{(\w+)\}\}', lambda found: pieces[found[1]], skeleton)


def inert(value: Any) -> str:
  """JSON that ends no `script` element, whatever its texts say."""
  text = json.dumps(value, separators=(',', ':'), allow_nan=False)
  return text.translate({ord(c): f'\\u{ord(c):04x}' for c in '<>&'})


def digest(text: str) -> str:
  """As a content security policy wants it."""
  return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def write(workdirs: Sequence[Path], out: Path | None = None) -> Path:
  """Writes the page of a run into its folder, or to `out`; whole or not at all.

  Raises:
    UserError: one is no run, or the page cannot be written.
  """
  inside = out is None
  path = Path(workdirs[0]) / PAGE if out is None else out
  text = render(workdirs, path.parent if inside else None)
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as part:
      part.write_text(text, encoding='utf-8')
  except OSError as error:
    raise UserError(f'{path} cannot be written: {error.strerror}.') from error
  return path
