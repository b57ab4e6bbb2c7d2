"""A run as it is exported: its config and the arrays of a checkpoint."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gan_jax.config import AdamConfig, Config
from gan_jax.config.workdir import read_config
from gan_jax.importers.published_model import AdamMoments
from gan_jax.models.base import Variables, variable_shapes
from gan_jax.storage.checkpoint import open_checkpoint
from gan_jax.training.optimizers import make_optimizer
from gan_jax.training.train_state import flatten_kernels


class SavedRun(NamedTuple):
  """What a checkpoint has, in memory.

  D is None in a checkpoint without one, as of a tuned or a blended generator.
  """

  config: Config
  step: int
  images: int
  g: Variables
  ema: Variables
  d: Variables | None
  g_opt: Any
  d_opt: Any


def read_run(workdir: Path, step: int | None = None) -> SavedRun:
  """A checkpoint of the run in `workdir`.

  Args:
    step: of the checkpoint; None for the newest.

  Raises:
    UserError: there is no run, or no such checkpoint.
  """
  config = read_config(workdir)
  like_g, like_d = variable_shapes(config.gan)

  def optimizer(adam: AdamConfig, like: Variables) -> Any:
    init = lambda params: make_optimizer(adam).init(flatten_kernels(params))
    return jax.eval_shape(init, like['params'])

  like = {
    'images': jax.ShapeDtypeStruct((), jnp.uint32),
    'g': like_g,
    'ema': like_g,
    'd': like_d,
    'g_opt': optimizer(config.g_adam, like_g),
    'd_opt': optimizer(config.d_adam, like_d),
  }
  with open_checkpoint(workdir, step) as (checkpoints, found):
    names = checkpoints.subtrees(found)
    present = {name: tree for name, tree in like.items() if name in names}
    parts = jax.device_get(checkpoints.restore_part(found, present))
  missing = dict.fromkeys(like.keys() - parts.keys())
  return SavedRun(config, found, **{**parts, **missing, 'images': int(parts['images'])})


def adam_moments(
  state: Any, config: AdamConfig, params: Variables
) -> AdamMoments | None:
  """The moments in an optimizer's state, with the shapes of the parameters.

  None where PyTorch's Adam cannot continue from them: TensorFlow adds eps elsewhere.
  """
  if state is None or config.tf_eps:
    return None
  get = lambda name: optax.tree_utils.tree_get(state, name)
  shaped = lambda tree: jax.tree.map(
    lambda x, like: np.reshape(x, like.shape), tree, params
  )
  second = shaped(get('nu'))
  mu = get('mu')  # not stored where beta1 is 0
  first = jax.tree.map(np.zeros_like, second) if mu is None else shaped(mu)
  return AdamMoments(int(get('count')), first, second)
