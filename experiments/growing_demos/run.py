"""Curves and sample grids of a growing GAN, stage by stage. See README.md."""

import argparse
import json
import tempfile
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image

from gan_jax import sample
from gan_jax.storage.json_lines import read_json_lines

matplotlib.use('Agg')
import matplotlib.pyplot as plt


def read_steps(workdir: Path) -> list[dict]:
  """Metrics of training steps, ordered by images; of a repeated step the newest."""
  lines = read_json_lines(workdir / 'metrics.jsonl')
  steps = {line['images']: line for line in lines if 'd_loss' in line}
  return [steps[images] for images in sorted(steps)]


def curves(steps: list[dict], out: Path) -> None:
  """Plots losses and scores over images; each resolution has its own shade."""
  images = np.array([line['images'] for line in steps])
  names = (('d_loss', 'g_loss'), ('d_real', 'd_fake'), ('d_penalty',))
  figure, axes = plt.subplots(len(names), 1, sharex=True, figsize=(8, 7))
  for axis, group in zip(axes, names, strict=True):
    for name in group:
      axis.plot(images, [line[name] for line in steps], label=name, linewidth=1)
    shade(axis, steps)
    axis.legend(loc='upper left', frameon=False)
    axis.margins(x=0)
  axes[-1].set_yscale('log')
  axes[-1].set_xlabel('images seen (hatched: the resolution fades in)')
  figure.tight_layout()
  figure.savefig(out, dpi=120)


def shade(axis, steps: list[dict]) -> None:
  start = 0
  for number, res in enumerate(sorted({line['res'] for line in steps})):
    stage = [line for line in steps if line['res'] == res]
    axis.axvspan(
      start, stage[-1]['images'], alpha=0.06 + 0.06 * number, color='C0', lw=0
    )
    fading = [line['images'] for line in stage if line['alpha'] < 1]
    if fading:
      axis.axvspan(start, fading[-1], fill=False, hatch='//', alpha=0.15, lw=0)
    axis.text(start, 1.01, f' {res:.0f} px', transform=axis.get_xaxis_transform())
    start = stage[-1]['images']


def stages(workdir: Path, steps: list[dict], out: Path, height: int = 420) -> None:
  """Joins the last sample grid of each resolution side by side."""
  grids = {int(path.stem): path for path in (workdir / 'samples').glob('*.png')}
  pages = []
  for res in sorted({line['res'] for line in steps}):
    last = max(line['images'] for line in steps if line['res'] == res)
    page = Image.open(grids[max(images for images in grids if images <= last)])
    width = round(page.width * height / page.height)
    pages.append(page.convert('RGB').resize((width, height), Image.Resampling.NEAREST))
  joined = Image.new('RGB', (sum(p.width for p in pages), height), 'white')
  x = 0
  for page in pages:
    joined.paste(page, (x, 0))
    x += page.width
  joined.save(out)


def mixing(workdir: Path, out: Path) -> None:
  """Draws an image grid of mixed styles, enlarged by 2."""
  with tempfile.TemporaryDirectory() as folder:
    page = Path(folder) / 'mix.png'
    sample.main(
      [f'--workdir={workdir}', '--seeds=0-3', '--mix=10-19', '--psi=0.7']
      + [f'--out={page}']
    )
    with Image.open(page) as image:
      size = 2 * image.width, 2 * image.height
      image.resize(size, Image.Resampling.NEAREST).save(out)


def main() -> None:
  p = argparse.ArgumentParser(description=__doc__)
  p.add_argument('--workdir', type=Path, required=True)
  p.add_argument('--out', type=Path, help='output folder; default: the workdir')
  args = p.parse_args()
  out = args.out or args.workdir
  out.mkdir(parents=True, exist_ok=True)
  steps = read_steps(args.workdir)
  curves(steps, out / 'curves.png')
  stages(args.workdir, steps, out / 'stages.png')
  written = ['curves.png', 'stages.png']
  if (
    json.loads((args.workdir / 'config.json').read_text())['model']['family']
    == 'stylegan'
  ):
    mixing(args.workdir, out / 'mixing.png')
    written.append('mixing.png')
  print(f'wrote to {out}: {", ".join(written)}')


if __name__ == '__main__':
  main()
