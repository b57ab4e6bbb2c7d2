"""Which GPU fits which recipe, from the plans in results/: the `train.accum` it needs.

Memory beyond the state is taken to be proportional to the images at a time, as
`stage_cost.what_would_fit` does.
"""

import json
from pathlib import Path

from gan_jax.plan.gpus import GPUS

CARDS = ('l4', 'rtx4090', 'a100-40', 'a100-80', 'h100')


def needed(batch: int, most: int) -> str:
  """'all', or images at a time x `train.accum` where at most so many fit at a time."""
  if not most:
    return '-'
  accum = next(k for k in range(1, batch + 1) if batch % k == 0 and batch // k <= most)
  return f'{batch // accum:,} x {accum}' if accum > 1 else 'all'


def main() -> None:
  print(f'| recipe, pixels | images a step | state | an image | {" | ".join(CARDS)} |')
  print('|---' * (4 + len(CARDS)) + '|')
  seen = set()
  for path in sorted((Path(__file__).parent / 'results').glob('*.json')):
    for row in json.loads(path.read_text()):
      recipe = row['config'].removeprefix('configs/').replace('.py', '')
      if 'kernels' not in row or (recipe, row['res']) in seen:
        continue
      seen.add((recipe, row['res']))
      state, at_a_time = row['state_bytes'], row['images_per_chip'] // row['accum']
      image = (row['hbm_bytes'] - state) / at_a_time
      fits = [max(int((GPUS[card].hbm - state) / image), 0) for card in CARDS]
      cells = [needed(row['batch'], n) for n in fits]
      print(
        f'| `{recipe}`, {row["res"]} | {row["batch"]:,} | {state / 1e9:.2f} GB | '
        f'{image / 1e6:.3g} MB | {" | ".join(cells)} |'
      )


if __name__ == '__main__':
  main()
