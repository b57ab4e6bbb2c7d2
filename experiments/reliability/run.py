"""What kill -9, flipped bytes and provoked collapses do to a run; see README.md."""

import argparse
import csv
import dataclasses
import importlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp

import gan_jax  # before jax: sets its flags
from gan_jax import UserError, data, recipe, train
from gan_jax.checkpoint import damage

import jax  # isort: skip

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).parent / 'results'
STEPS = 32
GROWING = [  # every step is saved; 4 pixels, then a fade to 8 in the middle
  '--config=configs/stylegan_lsun.py:tiny',
  f'--config.train.images={8 * STEPS}',
  f'--config.schedule.stabilise={4 * STEPS}',
  f'--config.schedule.fade={2 * STEPS}',
  '--config.log.checkpoint_every=8',
  f'--config.log.sheet_every={STEPS}',
]


def start(workdir: Path) -> subprocess.Popen:
  return subprocess.Popen(
    [sys.executable, '-m', 'gan_jax.main', f'--workdir={workdir}', *GROWING],
    cwd=ROOT,
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )


def restored(workdir: Path, step: int) -> list:
  """All arrays of a checkpoint, read by orbax alone."""
  folder = (workdir / 'checkpoints' / str(step) / 'default').absolute()
  reader = ocp.PyTreeCheckpointer()
  tree = reader.metadata(folder).item_metadata.tree
  plain = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
  return jax.tree.leaves(reader.restore(folder, restore_args=plain))


def equal(ours: list, theirs: list) -> bool:
  return len(ours) == len(theirs) and all(map(np.array_equal, ours, theirs))


def steps_done(workdir: Path) -> int:
  return len([x for x in train.read_lines(workdir / 'metrics.jsonl') if 'd_real' in x])


def kills(scratch: Path, rng: np.random.Generator, n: int) -> list[dict]:
  """Kills one run n times, each within half a second of its first new steps."""
  whole, killed = scratch / 'whole', scratch / 'killed'
  if start(whole).wait():
    raise SystemExit('the undisturbed run failed')
  rows = []
  for i in range(n):
    process, before = start(killed), steps_done(killed)
    folder = killed / 'metrics.jsonl'
    size = folder.stat().st_size if folder.is_file() else 0
    while process.poll() is None:
      if folder.is_file() and folder.stat().st_size > size:
        break
      time.sleep(0.005)
    time.sleep(rng.uniform(0, 0.5))
    process.kill()
    process.wait()
    parts = list((killed / 'checkpoints').glob('*.orbax-checkpoint-tmp*'))
    rows.append(
      {'kill': i, 'from': before, 'to': steps_done(killed), 'in_a_save': len(parts)}
    )
    print(rows[-1], flush=True)
  code = start(killed).wait()
  same = equal(restored(killed, STEPS), restored(whole, STEPS))
  print(f'exit {code}; parameters bit-identical: {same}')
  rows.append({'kill': 'end', 'from': '', 'to': STEPS, 'in_a_save': f'equal: {same}'})
  return rows


def flips(scratch: Path, rng: np.random.Generator, n: int) -> list[dict]:
  """Flips one bit at n offsets, uniform over the bytes of the newest checkpoint."""
  workdir = scratch / 'whole'
  if not workdir.is_dir() and start(workdir).wait():
    raise SystemExit('the run failed')
  folder = workdir / 'checkpoints' / str(STEPS)
  good = restored(workdir, STEPS)
  files = [p for p in sorted(folder.rglob('*')) if p.is_file() and p.stat().st_size]
  sizes = np.array([p.stat().st_size for p in files])
  found = {'detected': 0, 'harmless': 0, 'silent': 0}
  for at in rng.integers(sizes.sum(), size=n):
    which = int(np.searchsorted(sizes.cumsum(), at, side='right'))
    path, offset = files[which], int(at - sizes[:which].sum())
    whole = path.read_bytes()
    path.write_bytes(
      whole[:offset]
      + bytes([whole[offset] ^ 1 << int(rng.integers(8))])
      + whole[offset + 1 :]
    )
    if damage(folder):
      found['detected'] += 1
    else:
      same = equal(restored(workdir, STEPS), good)
      found['harmless' if same else 'silent'] += 1
    path.write_bytes(whole)
  print(found, f'{sizes.sum()} bytes in {len(files)} files')
  return [found]


def digits(images: int, seed: int, rate: float = 1.0, **watch) -> dict:
  """A small BigGAN on digits."""
  config = importlib.import_module('configs.biggan_digits').get_config().to_dict()
  config['model'] |= dict(g_ch=8, d_ch=8)
  config['schedule'] |= dict(
    batch=32,
    g_lr=config['schedule']['g_lr'] * rate,
    d_lr=config['schedule']['d_lr'] * rate,
  )
  config['train'] |= dict(images=images, seed=seed)
  config['log'] |= dict(
    metrics_every=320, sheet_every=1600, checkpoint_every=1600, keep=3, ring=3
  )
  return config | {'watch': watch}


def train_digits(workdir: Path, constant_labels: bool = False, **kw) -> str:
  """Trains; what it said when it stopped, or ''."""
  config, load = digits(**kw), data.load

  def patched(*args, **kwargs):
    dataset = load(*args, **kwargs)
    zeros = np.zeros_like(dataset.examples.labels)
    return dataclasses.replace(
      dataset, examples=dataclasses.replace(dataset.examples, labels=zeros)
    )

  data.load = patched if constant_labels else load
  try:
    train.train(recipe.read(config), config, workdir, allow_config_change=True)
  except UserError as error:
    return str(error)
  finally:
    data.load = load
  return ''


def outcome(workdir: Path, name: str, said: str) -> dict:
  lines = train.read_lines(workdir / 'metrics.jsonl')
  alarms = [line for line in lines if 'collapsed' in line]
  rolled = train.read_lines(workdir / 'rollbacks.jsonl')
  row = {
    'run': name,
    'alarms': len(alarms) + len(rolled),
    'first_at': (rolled or alarms or [{'images': ''}])[0]['images'],
    'rollbacks': len(rolled),
    'skipped': sum(line.get('skipped', 0) for line in lines),
    'last_diversity': [x['diversity'] for x in lines if 'diversity' in x][-1],
    'stopped': said[:120],
  }
  print(row, flush=True)
  return row


def collapses(scratch: Path, images: int) -> list[dict]:
  """Half of a healthy run, then the fault."""
  healthy = scratch / 'healthy'
  train_digits(healthy, images=images // 2, seed=0)
  rows = []
  for name, change in {
    'rate x 20': dict(rate=20.0),
    'constant labels': dict(constant_labels=True),
  }.items():
    workdir = scratch / name.replace(' ', '_')
    shutil.copytree(healthy, workdir)
    rolling = dict(response='rollback', lower=0.05)
    said = train_digits(workdir, images=images, seed=0, **change, **rolling)
    rows.append(outcome(workdir, name, said))
  return rows


def seeds(scratch: Path, images: int, n: int) -> list[dict]:
  rows = []
  for seed in range(n):
    workdir = scratch / f'seed{seed}'
    said = train_digits(workdir, images=images, seed=seed)
    rows.append(outcome(workdir, f'seed {seed}', said))
  return rows


def main() -> None:
  p = argparse.ArgumentParser(description=__doc__)
  p.add_argument('what', choices=('kills', 'flips', 'collapses', 'seeds'))
  p.add_argument('--scratch', type=Path, required=True, help='folder for the runs')
  p.add_argument('--n', type=int, default=0)
  p.add_argument('--images', type=int, default=24_000)
  p.add_argument('--seed', type=int, default=0)
  args = p.parse_args()
  args.scratch.mkdir(parents=True, exist_ok=True)
  rng = np.random.default_rng(args.seed)
  rows = {
    'kills': lambda: kills(args.scratch, rng, args.n or 30),
    'flips': lambda: flips(args.scratch, rng, args.n or 200),
    'collapses': lambda: collapses(args.scratch, args.images),
    'seeds': lambda: seeds(args.scratch, args.images, args.n or 10),
  }[args.what]()
  RESULTS.mkdir(exist_ok=True)
  with (RESULTS / f'{args.what}.csv').open('w', newline='') as f:
    writer = csv.DictWriter(f, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)


if __name__ == '__main__':
  assert gan_jax
  main()
