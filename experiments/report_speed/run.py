"""Times gan_jax.report on long runs, and its cost to the training loop."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gan_jax import report

LINE = {
  'alpha': 1.0, 'd_fake': -0.12345678, 'd_grad': 1.5, 'd_loss_fake': 0.3, 'd_lr': 5e-4,
  'd_loss_real': 0.4, 'd_real': 0.2, 'g_grad': 2.5, 'g_loss': 0.5, 'g_lr': 4e-4,
  'res': 32.0, 'skipped': 0.0, 'images_per_s': 100.0,
}  # fmt: skip


def main() -> None:
  p = argparse.ArgumentParser(description=__doc__)
  p.add_argument('--lines', type=int, nargs='+', default=[1_000, 10_000, 100_000])
  for n in p.parse_args().lines:
    with tempfile.TemporaryDirectory() as folder:
      workdir = Path(folder)
      (workdir / 'config.json').write_text('{"train": {"images": 1}}')
      with (workdir / 'metrics.jsonl').open('w') as f:
        for i in range(n):
          f.write(json.dumps({'images': 32 * (i + 1), **LINE, 'd_real': i % 7}) + '\n')
        f.write('{"images": 1, "d_re')  # cut off by a kill
      start, cpu_before = time.perf_counter(), os.times().children_user
      command = [sys.executable, '-m', 'gan_jax.report', folder]
      subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
      seconds = time.perf_counter() - start
      cpu_seconds = os.times().children_user - cpu_before
      size = (workdir / report.PAGE).stat().st_size
      writer = report.ReportWriter(workdir, True, print)
      start = time.perf_counter()
      writer.refresh()
      call = time.perf_counter() - start
      writer.finish()
      print(
        f'{n} lines: {seconds:.2f} s ({cpu_seconds:.2f} s of CPU), {size:,} bytes; '
        f'the training loop waits {1000 * call:.1f} ms'
      )


if __name__ == '__main__':
  main()
