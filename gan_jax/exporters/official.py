"""A run in the terms of the original codes: arrays by official name, and settings."""

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from gan_jax import UserError
from gan_jax.config import Config
from gan_jax.config.schedules import ConstantSchedule
from gan_jax.exporters.saved_run import SavedRun, adam_moments
from gan_jax.importers.biggan_names import biggan_state
from gan_jax.importers.biggan_pytorch import official_dataset
from gan_jax.importers.biggan_settings import biggan_from_kwargs, official_settings
from gan_jax.importers.huggingface import (
  huggingface_config,
  huggingface_gan,
  huggingface_state,
)
from gan_jax.importers.nvidia import progressive_state
from gan_jax.importers.nvidia_settings import (
  official_kwargs,
  progan_from_kwargs,
  stylegan_from_kwargs,
)
from gan_jax.importers.published_model import AdamMoments
from gan_jax.models.base import GAN, TRAINING_KEYS
from gan_jax.models.biggan import BigGAN
from gan_jax.models.biggan_networks import G_WIDTHS
from gan_jax.models.progan import ProGAN
from gan_jax.models.progressive import published_widths
from gan_jax.models.stylegan import StyleGAN


class OfficialFiles(NamedTuple):
  """What a codebase's files hold, whatever format they get.

  Attributes:
    codebase: its name.
    arrays: arrays by official name, by the stem of a file's name.
    settings: JSON values by file name.
    training: what torch.save writes, by file name: of no use without .pth files.
    notes: sentences about what is left out.
  """

  codebase: str
  arrays: dict[str, dict[str, np.ndarray]]
  settings: dict[str, Any] = {}
  training: dict[str, Any] = {}
  notes: tuple[str, ...] = ()


def official_files(run: SavedRun) -> OfficialFiles:
  """The files of the codebase that published networks such as the run's.

  Raises:
    UserError: that codebase cannot build the network.
  """
  gan = run.config.gan
  if isinstance(gan, BigGAN):
    return _huggingface(gan, run) if gan.stats_rows else _biggan_pytorch(gan, run)
  assert isinstance(gan, ProGAN | StyleGAN)
  return _nvidia(gan, run)


_OTHERWISE = "gan_jax.sample --export writes the weights by gan_jax's own names."


def _check_can_build(
  gan: GAN, built: GAN, codebase: str, ignored: Collection[str] = ()
) -> None:
  """
  Args:
    built: what the codebase builds from the settings that come closest.
    ignored: keys of the model that need not agree.

  Raises:
    UserError: they differ.
  """
  for field in dataclasses.fields(gan):
    ours, theirs = (vars(x)[field.name] for x in (gan, built))
    if field.name not in TRAINING_KEYS and field.name not in ignored and ours != theirs:
      widths = field.name.endswith('widths') and not theirs
      allowed = 'the published widths' if widths else repr(theirs)
      raise UserError(
        f'model.{field.name} is {ours!r}, but {codebase} can only build such a network '
        f'with {allowed}: {_OTHERWISE}'
      )


def _fields(gan: GAN, *beginnings: str) -> set[str]:
  """The keys of the model that begin so."""
  names = (field.name for field in dataclasses.fields(gan))
  return {name for name in names if name.startswith(beginnings)}


_LARGEST_D = 256  # pixels, of BigGAN-PyTorch


def _biggan_pytorch(gan: BigGAN, run: SavedRun) -> OfficialFiles:
  """G, EMA weights and D, their optimizers, and state_dict.pth."""
  codebase = 'BigGAN-PyTorch'
  if gan.res not in G_WIDTHS:
    raise UserError(
      f'model.res is {gan.res}, but {codebase} has networks for '
      f'{", ".join(map(str, G_WIDTHS))} pixels: {_OTHERWISE}'
    )
  if not gan.n_classes:
    raise UserError(
      f'model.n_classes is 0, but {codebase} has no network without classes: '
      f'{_OTHERWISE}'
    )
  notes = [] if run.d is not None else ['the checkpoint has no discriminator']
  if run.d is not None and gan.res > _LARGEST_D:
    run = run._replace(d=None, d_opt=None)
    notes.append(f'{codebase} has no D for {gan.res} pixels: it is not written')
  settings = official_settings(gan)
  ignored = {'split_d', 'rgb_bn_eps', *(_fields(gan, 'd_') if run.d is None else ())}
  built = biggan_from_kwargs(settings, settings, bool(gan.depth))
  _check_can_build(gan, built, codebase, ignored)
  if gan.rgb_bn_eps != built.rgb_bn_eps:
    notes.append(
      f'model.rgb_bn_eps is {gan.rgb_bn_eps:g}, and {codebase} always takes '
      f'{built.rgb_bn_eps:g}: set eps of G.output_layer[0] there'
    )
  sides = {'G': run.g, 'G_ema': run.ema, 'D': run.d}
  arrays = {role: biggan_state(x, gan) for role, x in sides.items() if x is not None}
  config = run.config
  training: dict[str, Any] = {'state_dict': _training_state(run, settings)}
  optimizers = (
    ('G', run.g_opt, config.g_adam, run.g, config.schedule.g_lr),
    ('D', run.d_opt, config.d_adam, run.d, config.schedule.d_lr),
  )
  for side, state, adam, variables, lr in optimizers:
    moments = adam_moments(state, adam, variables['params']) if variables else None
    if moments is None:
      notes.append(f'the optimizer of {side} is not written')
      continue
    group = {'lr': lr, 'betas': (adam.beta1, adam.beta2), 'eps': adam.eps}
    group |= {'weight_decay': 0, 'amsgrad': False}
    training[f'{side}_optim'] = _torch_adam(moments, gan, group)
  return OfficialFiles(codebase, arrays, training=training, notes=tuple(notes))


def _torch_adam(
  moments: AdamMoments, gan: BigGAN, group: Mapping[str, Any]
) -> dict[str, Any]:
  """The state of torch.optim.Adam, which numbers the parameters."""
  first, second = (
    biggan_state({'params': moment}, gan) for moment in (moments.first, moments.second)
  )
  step = np.array(moments.steps, np.float32)
  states = {
    i: {'step': step, 'exp_avg': first[name], 'exp_avg_sq': second[name]}
    for i, name in enumerate(first)
  }
  return {'state': states, 'param_groups': [{**group, 'params': list(states)}]}


def _training_state(run: SavedRun, settings: Mapping[str, Any]) -> dict[str, Any]:
  """state_dict.pth: what BigGAN-PyTorch keeps of the training besides the weights."""
  config: Config = run.config
  schedule, train = config.schedule, config.train
  assert isinstance(schedule, ConstantSchedule)
  batch, images_per_step = schedule.batch, schedule.batch * train.d_steps
  g_accum, g_batch = train.g_accum or train.accum, train.g_batch or batch
  of_training = {
    'batch_size': batch // train.accum,
    'num_D_steps': train.d_steps,
    'num_D_accumulations': train.accum,
    'num_G_accumulations': g_accum,
    'G_batch_size': g_batch // g_accum,
    'G_lr': schedule.g_lr,
    'D_lr': schedule.d_lr,
    'ema': True,
    'use_ema': True,
    'ema_decay': schedule.ema,
    'ema_start': schedule.ema_start // images_per_step + bool(schedule.ema_start),
    'adam_eps': config.g_adam.eps,
  }
  for side, adam in (('G', config.g_adam), ('D', config.d_adam)):
    of_training |= {f'{side}_B1': adam.beta1, f'{side}_B2': adam.beta2}
    of_training[f'{side}_ortho'] = adam.ortho
  counters = {'epoch': 0, 'save_num': 0, 'save_best_num': 0}
  scores = {'best_IS': 0, 'best_FID': 999999}
  dataset = official_dataset(config.data.name, config.gan.res)
  settings = {**settings, **of_training, **dataset}
  return {'itr': run.step, **counters, **scores, 'config': settings}


def _huggingface(gan: BigGAN, run: SavedRun) -> OfficialFiles:
  """The EMA generator and its config."""
  config = huggingface_config(gan)
  of_training = {'sn_eps', 'g_sn_iterations', 'g_init', 'split_d'}
  codebase, ignored = 'pytorch-pretrained-BigGAN', of_training | _fields(gan, 'd_')
  _check_can_build(gan, huggingface_gan(config), codebase, ignored)
  notes = (
    'D, the weights besides the EMA weights, and the optimizers are not part of this '
    'format',
  )
  arrays = {'model': huggingface_state(run.ema, config)}
  return OfficialFiles(codebase, arrays, {'config.json': config}, notes=notes)


def _nvidia(gan: ProGAN | StyleGAN, run: SavedRun) -> OfficialFiles:
  """G, D and Gs in one file, and the arguments that build them."""
  is_stylegan = isinstance(gan, StyleGAN)
  name = 'StyleGAN' if is_stylegan else 'ProGAN'
  g_kwargs, d_kwargs = official_kwargs(gan)
  from_kwargs = stylegan_from_kwargs if is_stylegan else progan_from_kwargs
  paper = published_widths(gan.res)
  explicit = dataclasses.replace(
    gan, g_widths=gan.g_widths or paper, d_widths=gan.d_widths or paper
  )
  of_d = _fields(gan, 'd_', 'mbstd', 'mbdisc') if run.d is None else set()
  built: GAN = from_kwargs(g_kwargs, d_kwargs)
  _check_can_build(explicit, built, f"NVIDIA's {name}", of_d)
  phase = run.config.phase_at(run.images)
  lod = math.log2(gan.res / phase.res) + 1 - float(np.asarray(phase.alpha))
  sides = {'G': (run.g, 'G', g_kwargs), 'Gs': (run.ema, 'G', g_kwargs)}
  if run.d is not None:
    sides['D'] = (run.d, 'D', d_kwargs)
  arrays = {
    f'{role}/{official}': value
    for role, (variables, side, kwargs) in sides.items()
    for official, value in progressive_state(variables, gan, side, kwargs, lod).items()
  }
  settings = {'library': 'tfutil', 'G_kwargs': g_kwargs, 'D_kwargs': d_kwargs}
  notes = ['the optimizers are not part of this format']
  if run.d is None:
    notes.append('the checkpoint has no discriminator')
  stem = name.lower()
  return OfficialFiles(
    f"NVIDIA's {name}", {stem: arrays}, {f'{stem}.json': settings}, notes=tuple(notes)
  )
