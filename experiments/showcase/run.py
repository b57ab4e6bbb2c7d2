"""Packs the EMA generator of a run as the one that gan_jax ships. See README.md."""

import argparse
import json
import shutil
from pathlib import Path

import jax
import numpy as np

import gan_jax
from gan_jax.sampling.generator import TrainedGenerator
from gan_jax.storage.checkpoint import Checkpointer, restore_subtrees

SHOWCASE = Path(gan_jax.__file__).parent / 'data' / 'embedded' / 'showcase'


def pack(workdir: Path, out: Path) -> None:
  """Writes a workdir with the EMA weights in float16 and nothing else of the state."""
  gan = TrainedGenerator(workdir).gan
  g, _ = jax.eval_shape(gan.init, jax.random.key(0))
  like = {'ema': g, 'images': jax.ShapeDtypeStruct((), np.uint32)}
  parts, step = restore_subtrees(workdir, like)
  parts['ema'] = jax.tree.map(lambda x: np.asarray(x, np.float16), parts['ema'])
  shutil.rmtree(out, ignore_errors=True)
  (out / 'checkpoints').mkdir(parents=True)
  checkpoints = Checkpointer(out)
  checkpoints.save(step, parts)
  assert checkpoints.wait()
  checkpoints.close()
  for path in out.rglob('commit_success.txt'):  # names the folder of this machine
    path.write_text('')
  shutil.copy(workdir / 'config.json', out)
  record = json.loads((workdir / 'run.json').read_text())
  kept = {key: record[key] for key in ('gan_jax', 'versions', 'dataset')}
  (out / 'run.json').write_text(json.dumps(kept, indent=2) + '\n')


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--workdir', type=Path, required=True)
  parser.add_argument('--out', type=Path, default=SHOWCASE)
  args = parser.parse_args()
  pack(args.workdir, args.out)
  size = sum(path.stat().st_size for path in args.out.rglob('*') if path.is_file())
  print(f'{args.out}: {size / 1e6:.2f} MB')


if __name__ == '__main__':
  main()
