"""A run as one page: python -m gan_jax.report DIR [DIR ...].

The page is made of what lies in the run's folder and of nothing else, so it can be
made anew at any time. It needs no network: styles, script and curves (uPlot) are
inside. Pictures are inside as far as `page.ROOM` goes, and beyond that are taken from
the folder that the page lies in.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gan_jax.report.html import PAGE, write

__all__ = ['PAGE', 'ReportWriter', 'write']


class ReportWriter:
  """Keeps the page of a run that is training; its work is another process's."""

  def __init__(self, workdir: Path, active: bool, say: Callable[[str], Any]):
    self._workdir, self._active, self._say = workdir.resolve(), active, say
    self._process: subprocess.Popen[str] | None = None
    self._told = False

  def refresh(self) -> None:
    """Begins to write the page, unless one is being written; returns at once."""
    if not self._active or (self._process and self._process.poll() is None):
      return
    self._judge()
    self._process = subprocess.Popen(
      [sys.executable, '-m', 'gan_jax.report', '--nice', str(self._workdir)],
      cwd=Path(__file__).parent.parent.parent,  # where this gan_jax is found
      stdin=subprocess.DEVNULL,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.PIPE,
      text=True,
      start_new_session=True,  # Ctrl-C is for the run
    )

  def finish(self) -> None:
    """Writes the page once more, and waits for it."""
    self._judge()
    self.refresh()
    self._judge()

  def _judge(self) -> None:
    if not self._process:
      return
    _, complaint = self._process.communicate()
    failed, self._process = self._process.returncode, None
    if failed and not self._told:
      last = (complaint.strip().splitlines() or ['for no reason given'])[-1]
      self._say(f'{self._workdir / PAGE} could not be written ({last}): going on')
      self._told = True
