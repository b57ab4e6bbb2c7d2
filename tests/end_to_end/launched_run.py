"""A run of two processes that a file of launch/ starts, for tests.

It trains without an end until something happens to it. What it is to train is set then,
as `train.images` may be for a run that is resumed, and it has to end by itself.
"""

import contextlib
import os
import re
import sys
import time
from pathlib import Path

from tests.runs import ROOT, metric_lines
from tests.xla_flags import QUICK_COMPILES

BATCH = 8
CONFIG = """
from configs import biggan_digits


def get_config():
  config = biggan_digits.get_config('tiny')
  config.model.d_widths = (1, 2)
  config.log.grid_rows = config.log.grid_columns = 2
  config.log.grid_every = 10**9
  config.log.checkpoint_every = {every}
  config.train.images = {images}
  return config
"""


class LaunchedRun:
  """A run whose files are in `folder`.

  Attributes:
    log: what all starts print, one after the other.
    env: variables of its processes; programs that it compiles are in `programs`.
  """

  def __init__(self, folder: Path, programs: Path):
    self.folder, self.workdir, self.log = folder, folder / 'run', folder / 'log'
    self.env = dict(
      PATH=f'{Path(sys.executable).parent}:{os.environ["PATH"]}',
      PYTHONPATH=str(ROOT),
      GAN_JAX_CACHE=str(programs),
      XLA_FLAGS=f'--xla_force_host_platform_device_count=1 {QUICK_COMPILES}',
    )
    self.train_until(10**9)

  @property
  def flags(self) -> list[str]:
    config = f'--config={self.folder}/config.py'
    return [config, f'--workdir={self.workdir}', '--peer_timeout=10']

  def train_until(self, images: int) -> None:
    """Holds from the next start on."""
    text = CONFIG.format(images=images, every=10 * BATCH)
    (self.folder / 'config.py').write_text(text)

  def images(self) -> int:
    """Images that the run has seen, as far as it has written them."""
    lines = metric_lines(self.workdir)
    return lines[-1]['images'] if lines else 0

  def resumed_at(self) -> list[int]:
    """Images seen when each of the resumed starts began."""
    return [int(n) for n in re.findall(r'resuming at image (\d+)', self.printed())]

  def check_finished(self, images: int) -> None:
    """Asserts that each step was counted once, and that the last one was saved."""
    assert f'finished at image {images}' in self.printed()
    lines = [line['images'] for line in metric_lines(self.workdir)]
    assert lines == list(range(BATCH, images + 1, BATCH))
    assert (self.workdir / 'checkpoints' / str(images // BATCH)).is_dir()

  def wait_for_training(self) -> None:
    """Waits for a checkpoint of this start."""
    (first,) = self.resumed_at()[-1:] or [0]
    folder = self.workdir / 'checkpoints'
    steps = lambda: [int(p.name) for p in folder.glob('*') if p.name.isdigit()]
    self.wait_until(lambda: max(steps(), default=0) * BATCH > first)

  def wait_until(self, condition, seconds: float = 240) -> None:
    limit = time.monotonic() + seconds
    while not condition():
      assert time.monotonic() < limit, self.printed()
      time.sleep(0.1)

  def printed(self) -> str:
    return self.log.read_text() if self.log.exists() else ''

  def process(self, rank: int, variable: str) -> int:
    """The number of the process whose environment has `variable`=`rank`."""
    for folder in Path('/proc').glob('[0-9]*'):
      with contextlib.suppress(OSError):
        words = (folder / 'cmdline').read_bytes().split(b'\0')
        ours = {b'gan_jax.main', self.flags[1].encode()} <= {*words}
        if ours and words[0].endswith(b'python'):
          variables = (folder / 'environ').read_bytes().split(b'\0')
          if f'{variable}={rank}'.encode() in variables:
            return int(folder.name)
    raise AssertionError(f'{variable}={rank}: no such process')
