"""Runs that are made to collapse, and healthy ones, under the collapse monitor."""

import dataclasses
import importlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from gan_jax import UserError, data
from gan_jax.config import CollapseConfig, parse_config
from gan_jax.training import trainer
from gan_jax.training.collapse_monitor import (
  MAX_HISTORY,
  MIN_HISTORY,
  RATIOS,
  CollapseMonitor,
)

from launch import read_lines

BATCH = 32


def emoji(images: int, seed: int = 0, g_rate: float = 1.0, d_rate: float = 1.0) -> dict:
  """The demo's BigGAN at 16 pixels, half its width: 18 grids in 24,000 images."""
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
    grid_every=40 * BATCH,
    checkpoint_every=40 * BATCH,
    keep=3,
    keep_periodic=3,
  )
  return config


def one_label(dataset: data.Dataset) -> data.Dataset:
  """All labels 0, as a bug in a loader could cause. (A set of one class is refused.)"""
  zeros = np.zeros_like(dataset.examples.labels)
  examples = dataclasses.replace(dataset.examples, labels=zeros)
  return dataclasses.replace(dataset, examples=examples)


def train(
  workdir: Path,
  config: dict,
  harm: Callable[[data.Dataset], data.Dataset] | None = None,
) -> str:
  """Trains or resumes on faulty data; returns the error that ended the run, or ''."""
  load = data.load_dataset
  if harm:
    data.load_dataset = lambda *args, **kw: harm(load(*args, **kw))
  try:
    trainer.Trainer(parse_config(config), workdir, allow_config_change=True).run()
  except UserError as error:
    return str(error)
  finally:
    data.load_dataset = load
  return ''


FAULTS = {
  'learning rates x 20': (dict(g_rate=20.0, d_rate=20.0), None),
  'learning rate of D x 20': (dict(d_rate=20.0), None),
  'constant labels': ({}, one_label),
}


def verdicts(lines: list[dict]) -> list[int]:
  """Images at which the collapse monitor calls a run lost, from its metric lines."""
  monitor, found = CollapseMonitor(CollapseConfig()), []
  for line in lines:
    monitor.add_line(line)
    if 'diversity' in line and monitor.verdict():
      found.append(line['images'])
  return found


def collapses(scratch: Path, images: int) -> list[dict]:
  """Half of a healthy run, then a fault; the action on a collapse is a rollback."""
  healthy, half = scratch / 'healthy', images // 2
  train(healthy, emoji(half))
  rows = []
  for name, (rates, harm) in FAULTS.items():
    workdir = scratch / name.replace(' ', '_')
    if not workdir.is_dir():
      shutil.copytree(healthy, workdir)
    config = emoji(images, **rates) | {'collapse': dict(action='rollback')}
    error = train(workdir, config, harm)
    back = read_lines(workdir, 'to_step', 'rollbacks.jsonl')
    row = {
      'fault': name,
      'noticed_after': back[0]['images'] - half if back else '',
      'why': back[0]['collapsed'] if back else '',
      'rolled_back_to': ' '.join(str(x['to_step'] * BATCH - half) for x in back),
      'ended': error.partition(':')[0] or 'finished',
      'diversity_at_the_end': read_lines(workdir, 'diversity')[-1]['diversity'],
    }
    print(row, flush=True)
    rows.append(row)
  return rows


def seeds(scratch: Path, images: int, n: int) -> list[dict]:
  """Healthy runs, in which every verdict is a false alarm."""
  rows = []
  for seed in range(n):
    workdir = scratch / f'seed{seed}'
    if not read_lines(workdir) or read_lines(workdir)[-1]['images'] < images:
      train(workdir, emoji(images, seed=seed))
    lines = read_lines(workdir, 'images')
    alarms = len(verdicts(lines))
    row = {'seed': seed, 'alarms': alarms} | margins(lines)
    row['skipped'] = sum(line.get('skipped', 0) for line in lines)
    print(row, flush=True)
    rows.append(row)
  return rows


def margins(lines: list[dict]) -> dict:
  """How near a run came to a verdict: its extreme ratios to the usual values."""
  ratios: dict[str, list[float]] = {name: [] for name in ('diversity', *RATIOS)}
  seen: dict[str, list[float]] = {name: [] for name in ratios}
  steps: list[dict] = []
  for line in lines:
    if 'd_real' in line:
      steps.append(line | {'gap': abs(line['d_real'] - line['d_fake'])})
    if 'diversity' not in line:
      continue
    for name in ('gap', 'g_grad'):
      line[name] = float(np.median([step[name] for step in steps]))
    steps = []
    for name, before in seen.items():
      usual = max(before, default=0) if name == 'diversity' else before[-MAX_HISTORY:]
      if len(before) >= MIN_HISTORY:
        ratios[name].append(line[name] / float(np.median(usual)))
      before.append(line[name])
  return {
    'least_diversity': round(min(ratios['diversity']), 2),
    'widest_gap': round(max(ratios['gap']), 2),
    'least_gradient': round(min(ratios['g_grad']), 2),
    'largest_gradient': round(max(ratios['g_grad']), 2),
    'largest_sigma': round(max(ratios['d_sigma'] + ratios['g_sigma']), 2),
  }
