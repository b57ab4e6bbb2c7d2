"""One run on 4, then 2, then 8 devices, on two processes, and nudged by rounding."""

import importlib
import shutil
from pathlib import Path

import jax
import numpy as np
from launch import finish, free_address, journal, start, write_config

from gan_jax import recipe
from gan_jax.checkpoint import Checkpoints
from gan_jax.step import init_state

STEPS = 20
BATCH = 16
CONFIGS = {  # the second one grows within the 20 steps
  'biggan_digits': {},
  'stylegan_lsun': dict(schedule=dict(stabilise=5 * BATCH, fade=8 * BATCH)),
}


def config(name: str, optimizer: str, bits: int) -> dict:
  """A shipped config at its tiny size, with a line for every step.

  An eps far above every gradient turns Adam into SGD: then it is only a factor.
  """
  values = importlib.import_module(f'configs.{name}').get_config('tiny').to_dict()
  for section, changes in CONFIGS[name].items():
    values[section] |= changes
  values['schedule']['batch'] = BATCH if name == 'biggan_digits' else (BATCH,)
  values['log'] |= dict(metrics_every=1, sheet_every=10**6, checkpoint_every=10**6)
  if bits == 64:
    values['model']['dtype'] = 'float64'
  if optimizer == 'SGD':
    for net in 'gd':
      values[f'{net}_adam'] |= dict(eps=1e6, tf_eps=False)
      rate = values['schedule'][f'{net}_lr']
      values['schedule'][f'{net}_lr'] = (0.05e6,) if isinstance(rate, tuple) else 0.05e6
  return values


def nudge(before: Path, after: Path, values: dict, rng: np.random.Generator) -> None:
  """A workdir at step 1 with every parameter one unit in the last place beside."""
  r = recipe.read(values)
  g_tx, d_tx = r.g_adam.transform(), r.d_adam.transform()
  like = jax.eval_shape(lambda: init_state(r.gan, g_tx, d_tx, jax.random.key(0)))
  here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  like = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), like
  )
  source = Checkpoints(before, read_only=True)
  state = source.restore(1, like)
  source.close()

  def beside(x):
    x = np.asarray(x)
    return np.nextafter(x, x + rng.choice([-1, 1], x.shape).astype(x.dtype))

  def moved(net):
    return {**net, 'params': jax.tree.map(beside, net['params'])}

  after.mkdir(parents=True)
  for file in ('config.json', 'metrics.jsonl'):
    shutil.copy(before / file, after / file)
  target = Checkpoints(after)
  target.save(1, state.replace(g=moved(state.g), d=moved(state.d)))
  if not target.wait():
    raise SystemExit('the nudged state could not be saved')
  target.close()


def apart(ours: Path, theirs: Path) -> list[float]:
  """For every step, how far the losses are apart, as a part of them where above 1."""
  pairs = list(zip(journal(ours), journal(theirs), strict=True))
  assert len(pairs) == STEPS, len(pairs)
  return [
    max(abs(a[k] - b[k]) / max(1, abs(b[k])) for k in b if 'loss' in k)
    for a, b in pairs
  ]


def elastic(scratch: Path, rng: np.random.Generator) -> list[dict]:
  rows = []
  for name in CONFIGS:
    for optimizer, bits in (('SGD', 32), ('shipped', 32), ('shipped', 64)):
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
      for devices, step in ((4, 7), (2, 14), (8, STEPS)):
        finish(go('moved', devices, step))
      address = free_address()
      finish(*(go('two', 2, STEPS, f'--distributed={address},2,{i}') for i in range(2)))
      found = {k: apart(folder / k, folder / 'four') for k in ('moved', 'two')}
      if bits == 32:
        finish(go('first', 4, 1))
        nudge(folder / 'first', folder / 'nudged', values, rng)
        finish(go('nudged', 4, STEPS))
        found['nudged'] = apart(folder / 'nudged', folder / 'four')
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
