"""Trains variants of the emoji demo and compares their images. See README.md."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from PIL import Image

from gan_jax.storage.json_lines import read_json_lines

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / 'results'
SCORES = ('accuracy_small', 'fd_small')
VARIANTS = {  # images that take about the same time, and flags beside the config's
  'demo': (66_000, ()),
  'no_augmentation': (66_000, ('--config.augment.policy=',)),
  'wide': (
    24_000,
    (
      '--config.augment.policy=',
      '--config.model.g_ch=32',
      '--config.model.d_ch=32',
      '--config.schedule.batch=32',
      '--config.schedule.ema=0.995',
    ),
  ),
}


def train(name: str, workdir: Path) -> int:
  """Trains a variant, or goes on with it; returns its number of images."""
  images, flags = VARIANTS[name]
  command = [sys.executable, '-m', 'gan_jax.main', f'--workdir={workdir}']
  command += [f'--config={ROOT}/configs/biggan_emoji.py']
  command += [f'--config.train.images={images}', *flags]
  subprocess.run(command, check=True, cwd=ROOT)
  return images


def score(workdir: Path) -> dict[str, float]:
  """The scores of 2,000 images by name, those of real images included."""
  command = [sys.executable, '-m', 'gan_jax.evaluate', f'--workdir={workdir}']
  command += [f'--metrics={",".join(SCORES)}', '--num=2000']
  subprocess.run(command, check=True, cwd=ROOT)
  records = read_json_lines(workdir / 'evaluations.jsonl')
  return {record['metric']: round(record['value'], 4) for record in records}


def grid(workdir: Path, out: Path, scale: int = 3) -> None:
  """Writes the run's last image grid, enlarged."""
  page = Image.open(sorted((workdir / 'samples').glob('*.png'))[-1]).convert('RGB')
  size = page.width * scale, page.height * scale
  page.resize(size, Image.Resampling.NEAREST).save(out, optimize=True)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('variants', nargs='*', default=list(VARIANTS), metavar='VARIANT')
  parser.add_argument('--workdirs', type=Path, default=Path('runs/demo_images'))
  args = parser.parse_args()
  RESULTS.mkdir(exist_ok=True)
  table = RESULTS / 'variants.json'
  rows = json.loads(table.read_text()) if table.exists() else {}
  for name in args.variants:
    workdir = args.workdirs.absolute() / name
    rows[name] = {'images': train(name, workdir), **score(workdir)}
    table.write_text(json.dumps(rows, indent=2) + '\n')
    grid(workdir, RESULTS / f'{name}.png')


if __name__ == '__main__':
  main()
