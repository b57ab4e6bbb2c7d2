"""Times the explorer: how long after a slider has moved is there a new picture?"""

import argparse
import dataclasses
import statistics
import time
from pathlib import Path

from gan_jax.explore.session import ControlValues, ExplorerSession


def main():
  p = argparse.ArgumentParser(description=__doc__)
  p.add_argument('workdir', type=Path, nargs='+')
  p.add_argument('--pictures', type=int, default=9)
  args = p.parse_args()
  for workdir in args.workdir:
    desk = ExplorerSession(workdir)
    began = time.perf_counter()
    source = desk.select()
    able = desk.abilities(source)
    choice = ControlValues(psi=0.7)
    desk.draw(source, desk.shown(able, choice, True))
    opened = time.perf_counter() - began
    told = [f'{workdir.name}: opened and first picture after {opened:.1f} s']
    moved = 'psi' if able.styled else 'truncation'
    for name, draft in (('while it moves', True), ('let go', False)):
      times = []
      for i in range(args.pictures):
        choice = dataclasses.replace(choice, **{moved: 0.3 + i / 20 + draft / 100})
        began = time.perf_counter()
        desk.draw(source, desk.shown(able, choice, draft))
        times.append(1000 * (time.perf_counter() - began))
      told.append(f'{name} {statistics.median(times):.0f} ms (most {max(times):.0f})')
    print('; '.join(told), flush=True)


if __name__ == '__main__':
  main()
