"""Published models that several tests read, and a run as training would resume it."""

from pathlib import Path

import jax
import numpy as np
import pytest

from gan_jax.config.workdir import read_config
from gan_jax.importers.sources import read_published
from gan_jax.storage.checkpoint import Checkpointer
from gan_jax.training.optimizers import make_optimizer
from gan_jax.training.train_state import init_state

GOLDEN = Path(__file__).parents[1] / 'golden'


@pytest.fixture(scope='session')
def checkpoints() -> Path:
  """Folders of BigGAN-PyTorch and Hugging Face."""
  return GOLDEN / 'biggan_metrics' / 'checkpoints'


@pytest.fixture(scope='session')
def pickles() -> Path:
  """The folder of NVIDIA pickles."""
  return GOLDEN / 'progan_stylegan'


@pytest.fixture(scope='session')
def biggan(checkpoints):
  return read_published(checkpoints / 'exp_zip')


@pytest.fixture(scope='session')
def progan(pickles):
  return read_published(pickles / 'progan_tiny.pkl')


@pytest.fixture(scope='session')
def stylegan(pickles):
  return read_published(pickles / 'stylegan_tiny.pkl')


@pytest.fixture(scope='session')
def restore_run():
  """A function: workdir -> (config, training state of its newest checkpoint)."""

  def restore(workdir):
    config = read_config(workdir)
    optimizers = make_optimizer(config.g_adam), make_optimizer(config.d_adam)
    like = jax.eval_shape(
      lambda: init_state(config.gan, *optimizers, jax.random.key(0))
    )
    checkpointer = Checkpointer(workdir)
    state = checkpointer.restore(checkpointer.newest(), like)
    checkpointer.close()
    return config, state

  return restore


@pytest.fixture(scope='session')
def assert_equal_trees():
  """A function that compares two trees of arrays exactly."""

  def compare(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)

  return compare
