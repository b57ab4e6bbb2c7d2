"""How do the configs scale over pods? See README.md."""

import argparse
import csv
import datetime
import json
from pathlib import Path
from typing import Any

from gan_jax.plan import __main__ as command

HERE = Path(__file__).parent / 'results'
BIGGAN, EMOJI = 'configs/biggan_imagenet.py', 'configs/{}_emoji.py'
PROGAN, STYLEGAN = 'configs/progan_{}.py', 'configs/stylegan_{}.py'
GROWING = 'progan', 'stylegan'
LARGEST = STYLEGAN.format('ffhq'), PROGAN.format('celebahq')
# Configs, slices, batches ('': that of the config) and, of growing GANs, one resolution
# (0: all). First the most important configs; then every other config on a slice where
# it fits, the cheapest to compile first; then how they scale. A row takes 1 to 60
# minutes of one core. Compiled programs are cached, so an interrupted study resumes.
STUDY = (
  (f'{BIGGAN}:128', 'v5e:16x16', '2048', 0),
  (f'{BIGGAN}:128', 'v5e:8x8', '2048', 0),
  ('configs/biggan_digits.py', 'v5e:2x2', '', 0),
  ('configs/biggan_cifar10.py', 'v5e:1x1', '', 0),  # its batch is 50
  *((EMOJI.format(family), 'v5e:2x2', '', 0) for family in ('biggan', 'progan')),
  (EMOJI.format('stylegan'), 'v5e:2x2', '', 0),
  (PROGAN.format('cifar10'), 'v5e:2x2', '', 32),
  (PROGAN.format('celeba'), 'v5e:2x2', '', 128),
  (PROGAN.format('lsun'), 'v5e:2x2', '', 256),
  (STYLEGAN.format('lsun'), 'v5e:2x2', '', 256),
  (PROGAN.format('celebahq'), 'v5e:2x4,v5e:4x4,v6e:2x4', '', 1024),  # the last fits
  (STYLEGAN.format('ffhq'), 'v5e:2x4', '', 1024),
  *((f'{config}:bf16', 'v5e:2x4', '', 1024) for config in LARGEST),
  *((f'{LARGEST[0]}:bf16', 'v5e:2x4', '', 8 << i) for i in range(7)),  # their stages
  *((f'{LARGEST[1]}:bf16', 'v5e:2x4', '', 4 << i) for i in range(8)),
  (STYLEGAN.format('celebahq'), 'v5e:2x4,v5e:4x4', '', 1024),  # as is this one's
  (f'{BIGGAN}:256', 'v4:4x4x8', '2048', 0),
  (f'{BIGGAN}:512', 'v4:4x8x8', '2048', 0),
  (f'{BIGGAN}:deep128', 'v5e:16x16', '2048', 0),
  (f'{BIGGAN}:deep256', 'v4:4x4x8', '2048', 0),
  (f'{STYLEGAN.format("ffhq")}:pod', 'v5e:4x8', '', 1024),
  (f'{BIGGAN}:128', 'v5e:4x4,v5e:4x8,v5e:8x16', '2048', 0),
  (f'{BIGGAN}:128', 'v5e:16x16', '4096,8192,16384', 0),
  (f'{BIGGAN}:128', 'v5e:8x8', '256,512,1024', 0),
  (f'{BIGGAN}:128', 'v4:4x4x4,v4:4x4x8,v5p:4x4x4,v6e:8x8,v6e:16x16', '2048', 0),
)
# The same for GPUs. Rows that fit, and the ones below.
GPU_STUDY = (
  ('configs/biggan_digits.py', 'l4:1', '', 0),
  ('configs/biggan_fashion.py', 'l4:1', '', 0),
  (EMOJI.format('biggan'), 'l4:1', '', 0),
  *((f'configs/{family}_fashion.py', 'l4:1', '', 32) for family in GROWING),
  *((EMOJI.format(family), 'l4:1', '', 32) for family in GROWING),
  ('configs/sngan_cifar10.py', 'l4:1', '', 0),
  ('configs/biggan_cifar10.py', 'l4:1,rtx4090:1', '', 0),
  (PROGAN.format('cifar10'), 'l4:1', '', 32),
  (PROGAN.format('celeba'), 'rtx4090:1', '', 128),
  (PROGAN.format('lsun'), 'h100:1', '', 256),
  (STYLEGAN.format('lsun'), 'h100:1', '', 256),
  ('configs/sngan_imagenet.py', 'a100-40:1', '', 0),
  ('configs/sagan_imagenet.py', 'a100-40:4', '', 0),
  (STYLEGAN.format('ffhq'), 'h100:8,a100-40:8', '', 1024),
  (PROGAN.format('celebahq'), 'h100:8,a100-40:8', '', 1024),
  (f'{BIGGAN}:128', 'h100:8,h100:4x8', '2048', 0),
  (f'{BIGGAN}:256', 'h100:4x8', '2048', 0),
  (f'{BIGGAN}:512', 'h100:4x8', '2048', 0),
  (STYLEGAN.format('celebahq'), 'h100:8', '', 1024),
  (f'{BIGGAN}:deep128', 'h100:8', '2048', 0),
)
KEYS = (
  *('config', 'topology', 'chips', 'res', 'batch', 'fits', 'hbm_bytes', 'cycles'),
  *('step_s', 'slowest_s', 'mfu', 'slowest_mfu', 'images_per_s', 'run_chip_hours'),
  *('compute_s', 'memory_s', 'collectives_s', 'networks_flops', 'compile_s'),
  *('kernels', 'program_bytes'),
)


def name_of(config: str, topology: str, batch: Any, res: int) -> str:
  stem = Path(config.replace(':', '-')).name.replace('.py', '')
  name = f'{stem}_{topology.replace(":", "-")}_{batch or "published"}'
  return f'{name}_{res}px.json' if res else f'{name}.json'


def table(folder: Path) -> list[dict[str, Any]]:
  """One line per row of the reports in a folder."""
  rows: list[dict[str, Any]] = []
  for path in sorted(folder.glob('*.json')):
    rows += [{k: row.get(k, '') for k in KEYS} for row in json.loads(path.read_text())]
  return rows


def main() -> None:
  p = argparse.ArgumentParser(description=__doc__)
  p.add_argument(
    '--first', type=int, default=len(STUDY), help='plan only the first lines'
  )
  p.add_argument('--gpus', action='store_true', help='plan GPU_STUDY')
  p.add_argument('--cache', default='', help='folder of compiled programs')
  args = p.parse_args()
  HERE.mkdir(exist_ok=True)
  for config, topologies, batches, res in (GPU_STUDY if args.gpus else STUDY)[
    : args.first
  ]:
    for topology in topologies.split(','):
      for batch in batches.split(','):
        path = HERE / name_of(config, topology, batch, res)
        words = [f'--config={config}', f'--topology={topology}', f'--batch={batch}']
        words.append(f'--res={res}')
        words += [f'--cache={args.cache}'] if args.cache else []
        rows = command.run_plan(command.make_parser().parse_args(words))
        today = datetime.date.today().isoformat()
        path.write_text(json.dumps([{'date': today} | r for r in rows], indent=1))
        with (HERE / 'table.csv').open('w', newline='') as f:
          writer = csv.DictWriter(f, KEYS)
          writer.writeheader()
          writer.writerows(table(HERE))


if __name__ == '__main__':
  main()
