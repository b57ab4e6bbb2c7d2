"""Parses configs into validated dataclasses; no other package reads a raw config."""

from gan_jax.config.config import FAMILIES, SCHEDULES, SECTIONS, Config
from gan_jax.config.files import load_config, load_raw_config
from gan_jax.config.optimizers import AdamConfig
from gan_jax.config.parsing import build_gan, parse_config
from gan_jax.config.schedules import ConstantSchedule, ProgressiveSchedule, Stage
from gan_jax.config.sections import (
  CollapseConfig,
  DataConfig,
  FineTuneConfig,
  LogConfig,
  ScoreConfig,
  TrainConfig,
)

__all__ = [
  'FAMILIES',
  'SCHEDULES',
  'SECTIONS',
  'AdamConfig',
  'CollapseConfig',
  'Config',
  'ConstantSchedule',
  'DataConfig',
  'FineTuneConfig',
  'LogConfig',
  'ProgressiveSchedule',
  'ScoreConfig',
  'Stage',
  'TrainConfig',
  'build_gan',
  'load_config',
  'load_raw_config',
  'parse_config',
]
