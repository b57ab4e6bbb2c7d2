"""Killed runs, checkpoints with flipped bits, non-finite updates."""

import dataclasses
import importlib
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from gan_jax import UserError
from gan_jax.config import parse_config
from gan_jax.config.schedules import ConstantSchedule
from gan_jax.models.base import to_float
from gan_jax.models.biggan import BigGAN
from gan_jax.storage.checkpoint import Checkpointer
from gan_jax.storage.manifest import find_corruption
from gan_jax.training import trainer

from launch import equal, finish, read_lines, restored, start

STEPS = 32
GROWING = (  # every step is saved; 4 pixels, then a fade to 8 in the middle
  '--config=configs/stylegan_lsun.py:tiny',
  f'--config.train.images={8 * STEPS}',
  f'--config.schedule.stabilise={4 * STEPS}',
  f'--config.schedule.fade={2 * STEPS}',
  '--config.log.checkpoint_every=8',
  f'--config.log.grid_every={STEPS}',
)


def kills(scratch: Path, rng: np.random.Generator, n: int) -> list[dict]:
  """Kills one run n times, each within half a second of its first new steps."""
  whole, killed = scratch / 'whole', scratch / 'killed'
  # A cache of its own: a kill while a program is written would corrupt a shared one.
  apart = {'JAX_COMPILATION_CACHE_DIR': str(scratch / 'programs')}
  finish(start(whole, *GROWING, **apart))
  rows = []
  for i in range(n):
    before = len(read_lines(killed))
    process, file = start(killed, *GROWING, **apart), killed / 'metrics.jsonl'
    size = file.stat().st_size if file.is_file() else 0
    while process.poll() is None:
      if file.is_file() and file.stat().st_size > size:
        break
      time.sleep(0.005)
    time.sleep(rng.uniform(0, 0.5))
    process.kill()
    process.wait()
    parts = list((killed / 'checkpoints').glob('*.orbax-checkpoint-tmp*'))
    rows.append(
      {
        'kill': i,
        'from': before,
        'to': len(read_lines(killed)),
        'in_a_save': len(parts),
      }
    )
    print(rows[-1], flush=True)
  finish(start(killed, *GROWING, **apart))
  same = equal(restored(killed, STEPS), restored(whole, STEPS))
  print(f'parameters bit-identical: {same}')
  rows.append({'kill': 'end', 'from': '', 'to': STEPS, 'in_a_save': f'equal: {same}'})
  return rows


def flips(scratch: Path, rng: np.random.Generator, n: int) -> list[dict]:
  """Flips one bit at n offsets, uniform over the bytes of the newest checkpoint."""
  workdir = scratch / 'whole'
  if not workdir.is_dir():
    finish(start(workdir, *GROWING))
  folder = workdir / 'checkpoints' / str(STEPS)
  good = restored(workdir, STEPS)
  files = [p for p in sorted(folder.rglob('*')) if p.is_file() and p.stat().st_size]
  sizes = np.array([p.stat().st_size for p in files])
  found = {'detected': 0, 'harmless': 0, 'silent': 0}
  for at in rng.integers(sizes.sum(), size=n):
    which = int(np.searchsorted(sizes.cumsum(), at, side='right'))
    path, offset = files[which], int(at - sizes[:which].sum())
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[offset] ^= 1 << int(rng.integers(8))
    path.write_bytes(flipped)
    if find_corruption(folder):
      found['detected'] += 1
    else:
      same = equal(restored(workdir, STEPS), good)
      found['harmless' if same else 'silent'] += 1
    path.write_bytes(whole)
  print(found, f'{sizes.sum()} bytes in {len(files)} files')
  return [found]


@jax.custom_vjp
def scaled_back(x: jax.Array, factor: jax.Array) -> jax.Array:
  """x, whose gradient is multiplied by `factor`."""
  del factor
  return x


scaled_back.defvjp(
  lambda x, factor: (x, factor),
  lambda factor, g: (g * factor, jnp.zeros_like(factor)),
)


def d_broken(where: str) -> Callable:
  honest = BigGAN.d_loss

  def d_loss(self, g, d, real, draws, phase, augment):
    factor = jnp.where(phase.alpha > 1, jnp.nan, 1.0)
    if where == 'data':  # one pixel of one image
      images = to_float(real.images)
      real = real._replace(images=images.at[0, 0, 0, 0].multiply(factor))
    loss, aux = honest(self, g, d, real, draws, phase, augment)
    loss = scaled_back(loss, factor) if where == 'gradient' else loss
    return (loss * factor if where == 'loss' else loss), aux

  return d_loss


def g_broken(where: str) -> Callable:
  honest = BigGAN.g_loss

  def g_loss(self, g, d, draws, phase, augment):
    loss, aux = honest(self, g, d, draws, phase, augment)
    factor = jnp.where(phase.alpha > 1, jnp.nan, 1.0)
    return (scaled_back(loss, factor) if where == 'gradient' else loss * factor), aux

  return g_loss


def nans(scratch: Path) -> list[dict]:
  """A value is NaN in one step, or in every step from the fourth on."""
  config = importlib.import_module('configs.biggan_digits').get_config('tiny').to_dict()
  config['train']['images'] = 8 * 8
  config['log'] |= dict(checkpoint_every=8, grid_every=800, keep=8)
  config['collapse'] = dict(max_skipped=3)
  honest = ConstantSchedule.phase_at

  def run(workdir: Path, faulty: range) -> str:
    def phase_at(self, images, res):  # alpha, unused by BigGAN, marks the step
      phase = honest(self, images, res)
      hit = images // 8 in faulty
      return dataclasses.replace(phase, alpha=np.float32(2)) if hit else phase

    with mock.patch.object(ConstantSchedule, 'phase_at', phase_at):
      try:
        trainer.Trainer(parse_config(config), workdir).run()
      except UserError as error:
        return str(error)
    return ''

  rows = []
  run(scratch / 'sound', range(0))
  before = restored(scratch / 'sound', 3)
  for net, where in (
    *(('d', 'data'), ('d', 'gradient'), ('d', 'loss')),
    *(('g', 'gradient'), ('g', 'loss')),
  ):
    patched = (d_broken if net == 'd' else g_broken)(where)
    for times, faulty in (('once', range(3, 4)), ('for ever', range(3, 100))):
      workdir = scratch / f'{net}_{where}_{len(faulty)}'
      with mock.patch.object(BigGAN, f'{net}_loss', patched):
        error = run(workdir, faulty)
      steps = Checkpointer(workdir, read_only=True).steps()
      newest = restored(workdir, steps[-1])
      rows.append(
        {
          'not_a_number': f'{where} of {net.upper()}',
          'times': times,
          'skipped': sum(x['skipped'] for x in read_lines(workdir, 'skipped')),
          'ended': error[:60] or 'finished',
          'last_good_intact': equal(restored(workdir, 3), before),
          'newest': steps[-1],
          'newest_finite': all(np.isfinite(x).all() for x in newest),
        }
      )
      print(rows[-1], flush=True)
  return rows
