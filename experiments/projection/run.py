"""Does projection find the latents of images? See README.md."""

import argparse
import csv
import importlib.resources
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

RESULTS = Path(__file__).parent / 'results'
SCRATCH = Path('runs') / 'projection_experiment'
SIDE = 64  # pixels of a tile of the emoji that come with gan_jax
# Tiles that are in no class of the demos: a huffing face, an imp, a cat, Santa, a
# vampire, an elf, a watch, a white flag, a polar bear, an orange.
HELD_OUT = (102, 107, 567, 372, 387, 392, 987, 1640, 612, 717)


def call(module: str, *flags: str) -> float:
  """Runs a command; returns the CPU seconds that it took."""
  used = lambda: sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
  before = used()
  print('python -m', module, *flags, flush=True)
  subprocess.run([sys.executable, '-m', module, *flags], check=True)
  return used() - before


def held_out_images(folder: Path) -> list[str]:
  """Writes the held-out emoji as PNGs; their paths."""
  data = importlib.resources.files('gan_jax.data') / 'embedded'
  index = json.loads((data / 'emoji64.json').read_text())
  trained = {tile for tiles in index['classes'].values() for tile in tiles.values()}
  assert not trained & set(HELD_OUT)
  folder.mkdir(parents=True, exist_ok=True)
  paths = []
  with (data / 'emoji64.webp').open('rb') as f, Image.open(f) as tiles:
    for tile in HELD_OUT:
      y, x = divmod(tile, index['columns'])
      box = (x * SIDE, y * SIDE, (x + 1) * SIDE, (y + 1) * SIDE)
      paths.append(str(folder / f'{tile:04d}.png'))
      tiles.crop(box).convert('RGB').save(paths[-1])
  return paths


def own_images(workdir: str, seeds: str, folder: Path) -> list[str]:
  """Samples of the generator itself, as PNGs; their paths."""
  flags = (f'--workdir={workdir}', f'--seeds={seeds}', f'--out={folder}')
  call('gan_jax.sample', *flags, '--replace')
  return sorted(map(str, folder.glob('*.png')))


def project(images: Sequence[str], out: Path, *flags: str) -> tuple[list[dict], float]:
  """Projects anew; what results.json says of each image, and the CPU seconds."""
  shutil.rmtree(out, ignore_errors=True)
  seconds = call('gan_jax.project', *images, f'--out={out}', *flags)
  return json.loads((out / 'results.json').read_text())['images'], seconds


def measure(args: argparse.Namespace) -> None:
  """Projects a generator's own images, or held-out ones, and writes a table."""
  folder = SCRATCH / args.name
  if args.images == 'own':
    images = own_images(args.workdir, args.seeds, folder / 'own')
  else:
    images = held_out_images(folder / 'held_out')
  flags = [f'--workdir={args.workdir}', f'--loss={args.loss}', f'--steps={args.steps}']
  flags += [f'--space={args.space}'] if args.space else []
  flags += ['--tune'] if args.tune else []
  rows, seconds = project(images, folder / 'out', *flags)
  table = []
  for row in rows:
    loss = row[args.loss]
    cells = [Path(row['image']).stem, f'{row["start"]:.4g}', f'{loss:.4g}']
    cells += [f'{100 * loss / row["start"]:.2f}', f'{row["psnr"]:.1f}']
    cells += [f'{row["tuned"]["psnr"]:.1f}'] if args.tune else []
    table.append(cells)
  names = ['image', 'start', args.loss, 'percent', 'psnr']
  names += ['tuned psnr'] if args.tune else []
  RESULTS.mkdir(exist_ok=True)
  with (RESULTS / f'{args.name}.csv').open('w', newline='') as f:
    writer = csv.writer(f)
    writer.writerow(names)
    writer.writerows(table)
    writer.writerow(['CPU seconds', f'{seconds:.0f}'])
  shutil.copy(folder / 'out' / 'side_by_side.png', RESULTS / f'{args.name}.png')
  for cells in (names, *table):
    print('  '.join(f'{cell:>10}' for cell in cells))
  print(f'{seconds:.0f} CPU seconds')


def kill(args: argparse.Namespace) -> None:
  """SIGKILLs a projection again and again, and compares it with one left alone."""
  folder = SCRATCH / 'kill'
  shutil.rmtree(folder, ignore_errors=True)
  images = held_out_images(folder / 'held_out')
  flags = [*images, f'--workdir={args.workdir}', '--loss=pixels', '--save_every=20']
  flags += [f'--steps={args.steps}']
  state = folder / 'killed' / 'state.npz'
  killed_at: list[int] = []
  while len(killed_at) < args.kills:
    before, start = (state.stat().st_mtime_ns if state.exists() else 0), time.time()
    command = [sys.executable, '-m', 'gan_jax.project', *flags]
    process = subprocess.Popen([*command, f'--out={state.parent}'])
    changed = lambda before=before: (
      state.exists() and state.stat().st_mtime_ns != before
    )
    while process.poll() is None and not changed():
      time.sleep(0.02)
    time.sleep(0.37 * (len(killed_at) + 1))  # somewhere between two saves
    assert process.poll() is None, 'it has finished: take more --steps'
    process.kill()
    process.wait()
    with np.load(state) as arrays:
      killed_at.append(int(arrays['0000']))
    print(f'killed after {time.time() - start:.0f} s, saved: step {killed_at[-1]}')
  call('gan_jax.project', *flags, f'--out={state.parent}')
  call('gan_jax.project', *flags, f'--out={folder / "alone"}')
  for name in ('latents.npz', 'state.npz'):
    with np.load(state.parent / name) as a, np.load(folder / 'alone' / name) as b:
      same = a.files == b.files and all(np.array_equal(a[x], b[x]) for x in a.files)
    print(f'{name}: {"identical" if same else "DIFFERENT"}')
    assert same
  RESULTS.mkdir(exist_ok=True)
  steps = ', '.join(map(str, killed_at))
  text = f'killed with saved steps {steps} of {args.steps}; all arrays identical\n'
  (RESULTS / 'kill.txt').write_text(text)


def main() -> None:
  p = argparse.ArgumentParser(description=__doc__)
  p.add_argument('images', choices=('own', 'held_out', 'kill'))
  p.add_argument('--workdir', required=True)
  p.add_argument('--name', default='', help='of the files in results/')
  p.add_argument('--loss', default='lpips', choices=('lpips', 'pixels'))
  p.add_argument('--space', default='')
  p.add_argument('--steps', type=int, default=1000)
  p.add_argument('--seeds', default='100-101', help="of the generator's own images")
  p.add_argument('--kills', type=int, default=3)
  p.add_argument('--tune', action='store_true')
  args = p.parse_args()
  args.name = args.name or args.images
  kill(args) if args.images == 'kill' else measure(args)


if __name__ == '__main__':
  main()
