"""Renders run summaries and their images as one HTML file that needs no network."""

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
from gan_jax.report.charts import MAX_POINTS
from gan_jax.report.run_summary import distinct_names, summarize_run
from gan_jax.storage.files import atomic_path, check_output_file

PAGE = 'report.html'
MAX_EMBEDDED = 8_000_000  # bytes of all images inside a page
MAX_SIDE = 1280  # pixels of an image that had to be reduced to be embedded

_STATIC = Path(__file__).parent / 'static'


class ReportImages:
  """Embeds images into a page up to a size limit, and links to the others.

  A page that is to leave its folder cannot link to files. There, large images are
  reduced, and images beyond the limit are left out.
  """

  def __init__(self, folder: Path | None, max_bytes: int = MAX_EMBEDDED):
    """
    Args:
      folder: the folder of the page, from which links start; None: no links.
      max_bytes: limit of all embedded images.
    """
    self._folder, self._remaining = folder, max_bytes

  def source(self, path: Path, max_bytes: int) -> str | None:
    """The `src` attribute for an image file; None if it cannot be shown.

    Args:
      path: a .png file.
      max_bytes: limit of this image, if embedded.
    """
    try:
      content, kind = path.read_bytes(), 'png'
    except OSError:
      return None
    if len(content) > max_bytes and self._folder is None:
      content, kind = shrink_to_webp(content), 'webp'
    if content and len(content) <= min(max_bytes, self._remaining):
      self._remaining -= len(content)
      return f'data:image/{kind};base64,{base64.b64encode(content).decode()}'
    if self._folder is None:
      return None
    return urllib.parse.quote(os.path.relpath(path, self._folder))

  def with_sources(
    self, entries: list[dict[str, Any]], max_bytes: int
  ) -> list[dict[str, Any]]:
    """Replaces the path in `src` of each entry; drops entries that cannot be shown.

    Where the limit does not suffice for all, those embedded are spread evenly.
    """
    sources: dict[int, str | None] = {}
    for i in spread_order(len(entries)):
      sources[i] = self.source(entries[i]['src'], max_bytes)
    return [e | {'src': sources[i]} for i, e in enumerate(entries) if sources[i]]


def shrink_to_webp(content: bytes) -> bytes:
  """An image file as WebP with no side beyond `MAX_SIDE`; b'' if it is no image."""
  from PIL import Image

  try:
    with Image.open(io.BytesIO(content)) as image:
      reduced = image.convert('RGB')
  except (OSError, Image.DecompressionBombError):
    return b''
  reduced.thumbnail((MAX_SIDE, MAX_SIDE))
  out = io.BytesIO()
  reduced.save(out, 'webp', quality=85)
  return out.getvalue()


def spread_order(n: int) -> list[int]:
  """0..n-1, reordered so that every prefix is spread evenly.

  It begins with the last, the first and the middle one.
  """
  order = dict.fromkeys([n - 1, 0] if n else [])
  step = n
  while step > 1:
    step = -(-step // 2)
    order |= dict.fromkeys(range(0, n, step))
  return list(order)


def render(workdirs: Sequence[Path], folder: Path | None) -> str:
  """The HTML of the page of one run, or of several runs side by side.

  Args:
    workdirs: folders of the runs.
    folder: where the page will lie; None: anywhere, without links to images.

  Raises:
    UserError: a folder is not the workdir of a run.
  """
  runs = [summarize_run(Path(workdir)) for workdir in workdirs]
  images = ReportImages(folder)
  max_bytes = MAX_EMBEDDED // len(runs) // 4
  for run, name in zip(runs, distinct_names(workdirs), strict=True):
    run['name'] = name
    for entries in ('images', 'grids'):
      run[entries] = images.with_sources(run[entries], max_bytes)
  data = {
    'runs': runs,
    'thinned': any(run['records'] > MAX_POINTS for run in runs),
  }
  command = f'python -m gan_jax.report {" ".join(map(str, workdirs))}'
  title = ' and '.join(run['name'] for run in runs)
  return render_page(title, data, command, _STATIC / 'report.js')


def render_page(
  title: str, data: dict[str, Any], command: str, script_file: Path
) -> str:
  """A page that needs no network: styles, scripts, data, content security policy.

  Args:
    title: of the window.
    data: JSON that the script shows.
    command: writes the page anew.
    script_file: runs after page.js.
  """
  now = time.time()
  written = time.strftime('%Y-%m-%d %H:%M', time.localtime(now))
  data = {**data, 'time': int(now), 'written': written, 'command': command}
  library = (_STATIC / 'uplot' / 'uPlot.iife.min.js').read_text()
  script = (_STATIC / 'page.js').read_text() + script_file.read_text()
  styles = [_STATIC / 'uplot' / 'uPlot.min.css', _STATIC / 'report.css']
  hashes = ' '.join(f"'sha256-{csp_digest(text)}'" for text in (library, script))
  policy = (
    f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
    "img-src 'self' data: file:; base-uri 'none'; form-action 'none'"
  )
  values = {
    'policy': policy,
    'title': html.escape(title),
    'style': ''.join(path.read_text() for path in styles),
    'data': script_safe_json(data),
    'library': library,
    'script': script,
  }
  template = (_STATIC / 'report.html').read_text()
  return re.sub(r'\{\{(\w+)\}\}', lambda match: values[match[1]], template)


def script_safe_json(value: Any) -> str:
  """JSON in which no string can end a `script` element: <, > and & are escaped."""
  text = json.dumps(value, separators=(',', ':'), allow_nan=False)
  return text.translate({ord(c): f'\\u{ord(c):04x}' for c in '<>&'})


def csp_digest(script: str) -> str:
  """The base64 SHA-256 digest by which a content security policy allows a script."""
  return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def write_report(workdirs: Sequence[Path], out: Path | None = None) -> Path:
  """Writes the page of one or several runs atomically, and returns its path.

  Args:
    workdirs: folders of the runs.
    out: the file to write, with all images embedded; None: report.html in the first
      workdir, which links to images that are too large to be embedded.

  Raises:
    UserError: a folder is not the workdir of a run, or the page cannot be written.
  """
  if out is None:
    path = Path(workdirs[0]) / PAGE
  else:
    path = out
    check_output_file(path, '--out', ('.html', '.htm'))
  text = render(workdirs, path.parent if out is None else None)
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as part:
      part.write_text(text, encoding='utf-8')
  except OSError as error:
    raise UserError(f'{path} cannot be written: {error.strerror}.') from error
  return path
