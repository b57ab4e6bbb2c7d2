"""Latents from which directions are found: of seeds, of classes, or from files."""

import numpy as np
from jaxtyping import Float

from gan_jax import UserError
from gan_jax.sampling.class_names import parse_classes
from gan_jax.sampling.directions import normalized
from gan_jax.sampling.generator import TrainedGenerator
from gan_jax.sampling.latents import (
  Latents,
  check_latents,
  class_weights,
  load_latents,
)
from gan_jax.sampling.samplers import labels_from_seeds, latents

Points = Float[np.ndarray, 'n d']  # z, or w of a StyleGAN


def of_seeds(
  generator: TrainedGenerator, n: int, seed: int, label: int | None = None
) -> Points:
  """z or w of seeds from `seed` on, with their own labels or all with one label."""
  gan = generator.gan
  seeds = np.arange(seed, seed + n, dtype=np.uint32)
  z = np.asarray(latents(seeds, gan.dim_z))
  if gan.style_based is None:
    return normalized(z) if gan.normalize_z else z
  labels = np.asarray(labels_from_seeds(seeds, gan.n_classes))
  if label is not None:
    labels = np.full_like(labels, label)
  return generator.map_latents(z, class_weights(labels, gan.n_classes))


def two_labels(generator: TrainedGenerator, text: str) -> tuple[int, int]:
  """The labels in the value of --classes.

  Raises:
    UserError: the classes are not two that differ, or they do not decide w.
  """
  if not generator.n_classes:
    raise UserError(f'--classes={text}: this model has no classes.')
  if generator.gan.style_based is None:
    raise UserError(
      f'--classes={text}: in this model the class is an input beside z, and '
      'gan_jax.sample --interpolate=class goes from one to another; give two files of '
      'latents as --latents=A.npz,B.npz.'
    )
  labels = parse_classes(text, generator.n_classes, generator.class_names)
  if len(labels) != 2 or labels[0] == labels[1]:
    raise UserError(f'--classes={text}: give two classes that differ, such as 0,3.')
  return labels[0], labels[1]


def two_files(generator: TrainedGenerator, text: str) -> list[Points]:
  """z or w of the files in the value of --latents.

  w of a file with one w per layer is their mean.

  Raises:
    UserError: there are not two files, or they hold no latents of this model.
  """
  paths = text.split(',')
  if len(paths) != 2:
    raise UserError(f'--latents={text}: give two files, as A.npz,B.npz.')
  sets = [load_latents(path) for path in paths]
  for path, found in zip(paths, sets, strict=True):
    check_latents(path, found, generator.latent_shapes)
  return [_points(generator, path, x) for path, x in zip(paths, sets, strict=True)]


def _points(generator: TrainedGenerator, path: str, found: Latents) -> Points:
  gan = generator.gan
  if gan.style_based is None:
    return normalized(found.values) if gan.normalize_z else found.values
  if found.space == 'w_plus':
    return found.values.mean(1)
  if found.space == 'w':
    return found.values
  if found.labels is None and gan.n_classes:
    raise UserError(f'{path} holds z without labels, which w depends on: add them.')
  labels = np.zeros(len(found), np.int64) if found.labels is None else found.labels
  return generator.map_latents(found.values, class_weights(labels, gan.n_classes))
