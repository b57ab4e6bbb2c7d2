"""Saves changed weights of a trained generator as a folder to sample from."""

import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from gan_jax import UserError
from gan_jax.models.base import Variables
from gan_jax.sampling.generator import TrainedGenerator
from gan_jax.storage.checkpoint import Checkpointer, restore_subtrees


def write_generator(
  workdir: Path, out: Path, generator: TrainedGenerator, g: Variables
) -> None:
  """Writes a folder that `gan_jax.load` and `gan_jax.sample` take as a workdir.

  It has the config of the run and a checkpoint with `g` as EMA and as raw weights,
  without a discriminator. A folder `out` is replaced.

  Args:
    workdir: of the run that `generator` comes from.

  Raises:
    UserError: it cannot be written.
  """
  like = {'images': jax.ShapeDtypeStruct((), np.uint32)}
  parts, step = restore_subtrees(workdir, like, generator.step)
  shutil.rmtree(out, ignore_errors=True)  # of a process that was killed
  out.mkdir(parents=True)
  checkpointer = Checkpointer(out)
  checkpointer.save(step, {'ema': g, 'g': g, 'step': jnp.asarray(step), **parts})
  saved = checkpointer.wait()
  checkpointer.close()
  if not saved:
    raise UserError(f'{out}: the checkpoint could not be written, see above.')
  for name in ('run.json', 'config.json'):
    if (workdir / name).is_file():
      shutil.copyfile(workdir / name, out / name)
