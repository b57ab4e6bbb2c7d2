"""Runs that are made to collapse, and healthy ones, under the watch of watch.py."""

import dataclasses
import importlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from launch import journal

from gan_jax import UserError, data, recipe, train
from gan_jax.watch import Watcher

BATCH = 32


def emoji(images: int, seed: int = 0, g_rate: float = 1.0, d_rate: float = 1.0) -> dict:
  """The demo's BigGAN at 16 pixels and half its width, 18 sheets to 24,000 images."""
  config = importlib.import_module('configs.biggan_emoji').get_config().to_dict()
  config['model'] |= dict(
    res=16,
    dim_z=48,
    g_ch=16,
    d_ch=16,
    g_widths=(4, 2, 1),
    d_widths=(1, 2, 4),
    g_sn_vectors=3,
    d_sn_vectors=3,
  )
  config['schedule']['batch'] = BATCH
  config['schedule']['g_lr'] *= g_rate
  config['schedule']['d_lr'] *= d_rate
  config['train'] |= dict(images=images, seed=seed)
  config['log'] |= dict(
    metrics_every=10 * BATCH,
    sheet_every=40 * BATCH,
    checkpoint_every=40 * BATCH,
    keep=3,
    ring=3,
  )
  return config


def one_label(dataset: data.Dataset) -> data.Dataset:
  """As a slip in a loader would: every label is 0. (A set of one class is refused.)"""
  zeros = np.zeros_like(dataset.examples.labels)
  return _with(dataset, labels=zeros)


def one_picture(dataset: data.Dataset) -> data.Dataset:
  """Every picture is the first of its class."""
  labels = np.asarray(dataset.examples.labels)
  first = np.array([np.flatnonzero(labels == k)[0] for k in range(labels.max() + 1)])
  return _with(dataset, images=dataset.examples.images[first[labels]])


def _with(dataset: data.Dataset, **changes: np.ndarray) -> data.Dataset:
  examples = dataclasses.replace(dataset.examples, **changes)
  return dataclasses.replace(dataset, examples=examples)


def run(
  workdir: Path,
  config: dict,
  harm: Callable[[data.Dataset], data.Dataset] | None = None,
) -> str:
  """Trains, on harmed data; what it said when it stopped by itself, or ''."""
  load = data.load
  if harm:
    data.load = lambda *args, **kw: harm(load(*args, **kw))
  try:
    train.train(recipe.read(config), config, workdir, allow_config_change=True)
  except UserError as error:
    return str(error)
  finally:
    data.load = load
  return ''


FAULTS = {
  'learning rates x 20': (dict(g_rate=20.0, d_rate=20.0), None),
  'learning rate of D x 20': (dict(d_rate=20.0), None),
  'learning rate of G x 20': (dict(g_rate=20.0), None),
  'constant labels': ({}, one_label),
  'one picture per class': ({}, one_picture),
}


def verdicts(lines: list[dict], **limits) -> list[int]:
  """At how many images a watch with these limits would have called it lost."""
  watcher, found = Watcher(recipe.Watch(**limits)), []
  for line in lines:
    watcher.see(line)
    if 'diversity' in line and watcher.verdict():
      found.append(line['images'])
  return found


def collapses(scratch: Path, images: int) -> list[dict]:
  """Half of a healthy run, then the fault: once only told of, once rolled back."""
  healthy, half = scratch / 'healthy', images // 2
  if not healthy.is_dir():
    run(healthy, emoji(half))
  rows = []
  for name, (rates, harm) in FAULTS.items():
    row = {'fault': name}
    for response in ('tell', 'rollback'):
      workdir = scratch / f'{name.replace(" ", "_")}_{response}'
      if not workdir.is_dir():
        shutil.copytree(healthy, workdir)
        config = emoji(images, **rates) | {'watch': dict(response=response)}
        said = run(workdir, config, harm)
        (workdir / 'said.txt').write_text(said)
      lines = journal(workdir, 'images')
      if response == 'tell':
        alarms = verdicts(lines)
        row['noticed_after'] = alarms[0] - half if alarms else ''
        row['why'] = next((x['collapsed'] for x in lines if 'collapsed' in x), '')
        row['last_diversity'] = journal(workdir, 'diversity')[-1]['diversity']
      else:
        back = journal(workdir, 'to_step', 'rollbacks.jsonl')
        row['rolled_back_to'] = ' '.join(str(x['to_step'] * BATCH) for x in back)
        row['ended'] = (workdir / 'said.txt').read_text()[:60] or 'finished'
        row['then_diversity'] = journal(workdir, 'diversity')[-1]['diversity']
    print(row, flush=True)
    rows.append(row)
  return rows


def seeds(scratch: Path, images: int, n: int) -> list[dict]:
  """Healthy runs: every alarm is a false one."""
  rows = []
  for seed in range(n):
    workdir = scratch / f'seed{seed}'
    if not workdir.is_dir():
      run(workdir, emoji(images, seed=seed))
    lines = journal(workdir, 'images')
    row = {'seed': seed, 'alarms': len(verdicts(lines))} | margins(lines)
    row['skipped'] = sum(line.get('skipped', 0) for line in lines)
    print(row, flush=True)
    rows.append(row)
  return rows


def margins(lines: list[dict]) -> dict:
  """How near a run came to an alarm: its least variety and its widest gap."""
  least, widest, most, usual, window = 1.0, 0.0, 0.0, [], []
  for line in lines:
    if 'd_real' in line:
      window.append(abs(line['d_real'] - line['d_fake']))
    if 'diversity' not in line:
      continue
    gap, window = float(np.median(window)), []
    if most:
      least = min(least, line['diversity'] / most)
    if len(usual) >= 4:
      widest = max(widest, gap / float(np.median(usual)))
    most = max(most, line['diversity'])
    usual.append(gap)
  return {'least_variety': round(least, 3), 'widest_gap': round(widest, 2)}
