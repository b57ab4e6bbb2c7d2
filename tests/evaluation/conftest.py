"""A tiny BigGAN on digits, its workdir, and a shared cache of statistics."""

import importlib
import json

import jax
import numpy as np
import pytest

from gan_jax import data
from gan_jax.config import parse_config
from gan_jax.evaluation.metrics import small_network
from gan_jax.storage.checkpoint import Checkpointer


@pytest.fixture(scope='session')
def digits():
  return data.load_dataset('digits', res=16, channels=1)


@pytest.fixture(scope='session')
def raw_config():
  """The raw config of the smallest run."""
  return importlib.import_module('configs.biggan_digits').get_config('tiny').to_dict()


@pytest.fixture(scope='session')
def gan(raw_config):
  return parse_config(raw_config).gan


@pytest.fixture(scope='session')
def generator(gan):
  """Initial variables of G, on the host."""
  return jax.device_get(jax.jit(lambda key: gan.init(key)[0])(jax.random.key(0)))


@pytest.fixture(scope='session')
def workdir(raw_config, generator, tmp_path_factory):
  """A run with checkpoint 7, whose EMA weights differ from its raw weights."""
  folder = tmp_path_factory.mktemp('run')
  ema = {**generator, 'params': scaled(generator, 0.9)['params']}
  state = {'g': generator, 'ema': ema, 'images': np.uint32(56)}
  checkpoints = Checkpointer(folder)
  checkpoints.save(7, state)
  checkpoints.wait()
  checkpoints.close()
  (folder / 'config.json').write_text(json.dumps(raw_config))
  return folder


@pytest.fixture(scope='session')
def cache(tmp_path_factory):
  """A cache folder for all evaluators."""
  return tmp_path_factory.mktemp('cache')


@pytest.fixture
def few_steps(monkeypatch):
  """Trains small networks for a few steps only."""
  monkeypatch.setattr(small_network, 'TRAINING_STEPS', 5)


def scaled(generator, factor):
  """A generator with its parameters multiplied by a factor."""
  params = jax.tree.map(lambda x: factor * x, generator['params'])
  return {**generator, 'params': params}
