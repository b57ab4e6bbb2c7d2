"""A run on 4, then 2, then 8 devices; on two processes; and perturbed by rounding."""

import importlib
import shutil
from pathlib import Path

import jax
import numpy as np

from gan_jax.config import parse_config
from gan_jax.storage.checkpoint import Checkpointer
from gan_jax.training.optimizers import make_optimizer
from gan_jax.training.train_state import init_state

from launch import finish, free_address, read_lines, start, write_config

STEPS = 20
BATCH = 16
CONFIGS = {  # the second one grows within the 20 steps
  'biggan_digits': {},
  'stylegan_lsun': dict(schedule=dict(stabilise=5 * BATCH, fade=8 * BATCH)),
}


def config(name: str, optimizer: str, bits: int) -> dict:
  """A tiny variant that writes metrics and a checkpoint in every step.

  An eps far above every gradient turns Adam into SGD.
  """
  values = importlib.import_module(f'configs.{name}').get_config('tiny').to_dict()
  for section, changes in CONFIGS[name].items():
    values[section] |= changes
  values['schedule']['batch'] = BATCH if name == 'biggan_digits' else (BATCH,)
  values['log'] |= dict(
    metrics_every=1, grid_every=10**6, checkpoint_every=BATCH, keep=STEPS
  )
  if bits == 64:
    values['model']['dtype'] = 'float64'
  if optimizer == 'SGD':
    for net in 'gd':
      values[f'{net}_adam'] |= dict(eps=1e6, tf_eps=False)
      rate = values['schedule'][f'{net}_lr']
      values['schedule'][f'{net}_lr'] = (0.05e6,) if isinstance(rate, tuple) else 0.05e6
  return values


def begun(whole: Path, workdir: Path, step: int) -> None:
  """Copies a run as it was after `step` steps."""
  shutil.copytree(whole, workdir)
  for folder in (workdir / 'checkpoints').iterdir():
    if folder.name != str(step):
      shutil.rmtree(folder)


def nudge(workdir: Path, values: dict, rng: np.random.Generator) -> None:
  """Moves each parameter of the checkpoint of step 1 by one unit in the last place."""
  r = parse_config(values)
  g_tx, d_tx = make_optimizer(r.g_adam), make_optimizer(r.d_adam)
  like = jax.eval_shape(lambda: init_state(r.gan, g_tx, d_tx, jax.random.key(0)))
  here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  like = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), like
  )
  checkpoints = Checkpointer(workdir)
  state = checkpoints.restore(1, like)

  def beside(x):
    x = np.asarray(x)
    return np.nextafter(x, x + rng.choice([-1, 1], x.shape).astype(x.dtype))

  def moved(net):
    return {**net, 'params': jax.tree.map(beside, net['params'])}

  checkpoints.drop_after(0)
  checkpoints.save(1, state.replace(g=moved(state.g), d=moved(state.d)))
  if not checkpoints.wait():
    raise SystemExit('the perturbed state could not be saved')
  checkpoints.close()


def apart(ours: Path, theirs: Path) -> list[float]:
  """Largest difference of the losses in each step, relative where they are above 1."""
  pairs = list(zip(read_lines(ours), read_lines(theirs), strict=True))
  assert len(pairs) == STEPS, len(pairs)
  return [
    max(abs(a[k] - b[k]) / max(1, abs(b[k])) for k in b if 'loss' in k)
    for a, b in pairs
  ]


def elastic(scratch: Path, rng: np.random.Generator) -> list[dict]:
  rows = []
  for name in CONFIGS:
    for optimizer, bits in (('shipped', 32), ('SGD', 32), ('shipped', 64)):
      folder = scratch / f'{name}_{optimizer}_{bits}'
      values = config(name, optimizer, bits)
      file = write_config(folder / 'config.py', values)
      wide = {'JAX_ENABLE_X64': '1'} if bits == 64 else {}

      def go(to: str, devices: int, images: int, *flags: str, file=file, wide=wide):
        return start(
          file.parent / to,
          f'--config={file}',
          f'--config.train.images={images * BATCH}',
          *flags,
          devices=devices,
          **wide,
        )

      finish(go('four', 4, STEPS))
      begun(folder / 'four', folder / 'moved', 7)
      for devices, step in ((2, 14), (8, STEPS)):
        finish(go('moved', devices, step))
      job = f'--distributed={free_address()},2'
      patient = '--peer_timeout=600'
      finish(*(go('two', 2, STEPS, f'{job},{i}', patient) for i in range(2)))
      if bits == 32:
        begun(folder / 'four', folder / 'nudged', 1)
        nudge(folder / 'nudged', values, rng)
        finish(go('nudged', 4, STEPS))
      found = {
        kind: apart(folder / kind, folder / 'four')
        for kind in ('moved', 'two', 'nudged')
        if (folder / kind).is_dir()
      }
      row = {'config': name, 'optimizer': optimizer, 'bits': bits}
      for kind in ('moved', 'two', 'nudged'):
        steps = found.get(kind, [])
        row[kind] = f'{max(steps):.1e}' if steps else ''
        row[f'{kind}_above_1e-5_from'] = next(
          (i + 1 for i, x in enumerate(steps) if x > 1e-5), ''
        )
      print(row, flush=True)
      rows.append(row)
  return rows
