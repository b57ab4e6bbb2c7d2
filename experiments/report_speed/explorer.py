"""Times the explorer: milliseconds from a moved slider to the new image."""

import argparse
import dataclasses
import statistics
import time
from pathlib import Path

from gan_jax.explore.session import ControlValues, ExplorerSession


def main():
  p = argparse.ArgumentParser(description=__doc__)
  p.add_argument('workdir', type=Path, nargs='+')
  p.add_argument('--images', type=int, default=9)
  args = p.parse_args()
  for workdir in args.workdir:
    print(measure(workdir, args.images), flush=True)


def measure(workdir, n_images):
  """The line that reports on one workdir."""
  session = ExplorerSession(workdir)
  began = time.perf_counter()
  choice = session.select()
  capabilities = session.capabilities(choice)

  def draw(values, draft):
    options = session.displayed_options(capabilities, values, draft)
    session.render_png(choice, options)

  values = ControlValues(psi=0.7)
  draw(values, True)
  loaded = time.perf_counter() - began
  parts = [f'{workdir.name}: loaded and first image after {loaded:.1f} s']
  moved = 'psi' if capabilities.style_based else 'truncation'
  for name, draft in (('while it moves', True), ('released', False)):
    times = []
    for i in range(n_images):
      values = dataclasses.replace(values, **{moved: 0.3 + i / 20 + draft / 100})
      began = time.perf_counter()
      draw(values, draft)
      times.append(1000 * (time.perf_counter() - began))
    parts.append(f'{name} {statistics.median(times):.0f} ms (most {max(times):.0f})')
  return '; '.join(parts)


if __name__ == '__main__':
  main()
