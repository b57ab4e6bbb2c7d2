"""The report of a run as one HTML page: python -m gan_jax.report DIR [DIR ...].

The page is made from the files in the workdir alone, so it can be rewritten at any
time. It needs no network: styles, scripts, charts (uPlot) and, up to a size limit,
images are embedded; larger images are links into the workdir.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gan_jax.report.html import PAGE, write_report

__all__ = ['PAGE', 'ReportWriter', 'write_report']


class ReportWriter:
  """Rewrites the report of a run during training, in a separate process."""

  def __init__(self, workdir: Path, active: bool, log: Callable[[str], Any]):
    """
    Args:
      workdir: folder of the run.
      active: whether to write at all; one process of a job should.
      log: is called with the first failure; training goes on.
    """
    self._workdir, self._active, self._log = workdir.resolve(), active, log
    self._process: subprocess.Popen[str] | None = None
    self._failure_logged = False

  def refresh(self) -> None:
    """Starts to write the page, unless one is being written; returns at once."""
    if not self._active or (self._process and self._process.poll() is None):
      return
    self._wait()
    self._process = subprocess.Popen(
      [sys.executable, '-m', 'gan_jax.report', '--nice', str(self._workdir)],
      cwd=Path(__file__).parent.parent.parent,  # the folder that holds this gan_jax
      stdin=subprocess.DEVNULL,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.PIPE,
      text=True,
      start_new_session=True,  # Ctrl-C goes to the training process only
    )

  def finish(self) -> None:
    """Writes the page a last time and waits until it is written."""
    self._wait()
    self.refresh()
    self._wait()

  def close(self) -> None:
    """Gives up a page that is being written; the page before it stays."""
    if self._process:
      self._process.terminate()
      self._process.communicate()
      self._process = None

  def _wait(self) -> None:
    """Waits for the process, if there is one, and logs the first failure."""
    if not self._process:
      return
    _, stderr = self._process.communicate()
    failed, self._process = self._process.returncode, None
    if failed and not self._failure_logged:
      reason = (stderr.strip().splitlines() or ['no reason given'])[-1]
      self._log(f'{self._workdir / PAGE} could not be written ({reason}): going on')
      self._failure_logged = True
