"""Published weights in the terms of this library, whatever files they came from."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gan_jax import UserError
from gan_jax.models.base import GAN, Variables

RawConfig = dict[str, Any]


class AdamMoments(NamedTuple):
  """State of an Adam optimizer; both moments have the structure of the parameters."""

  steps: int
  first: Variables
  second: Variables


@dataclasses.dataclass(frozen=True)
class PublishedModel:
  """A published model and the state of its training.

  Attributes:
    path: file or folder it was read from.
    kind: name of the format, such as 'StyleGAN'.
    gan: the model, built from the settings of the source.
    g: variables of the trained generator.
    ema: variables of the EMA generator; the same as `g` if only one is published.
    d: variables of the discriminator, or None.
    d_expected: whether sources of this kind include D, so that an import without D is
      partial.
    g_moments: state of G's optimizer, or None.
    d_moments: state of D's optimizer, or None.
    step: training iterations done.
    training_config: GAN -> (raw config that continues the training, images seen). The
      GAN is `gan`, or `gan` with changed fields.
    notes: sentences about what the source lacks.
  """

  path: Path
  kind: str
  gan: GAN
  g: Variables
  ema: Variables
  d: Variables | None
  training_config: Callable[[GAN], tuple[RawConfig, int]]
  d_expected: bool = True
  g_moments: AdamMoments | None = None
  d_moments: AdamMoments | None = None
  step: int = 0
  notes: tuple[str, ...] = ()


_MAX_ENTRIES = 64
_MAX_NUMBER = 1e9
_MAX_BY_ENDING = {
  'resolution': 2048, 'output_dim': 2048, 'depth': 8, 'layers': 64, 'stats': 1001,
  'SVs': 16, 'SV_itrs': 16, 'features': 64, 'size': 4096,
}  # fmt: skip


def check_settings(settings: Mapping[str, Any]) -> None:
  """Rejects settings of an untrusted file that would build an enormous network.

  Raises:
    UserError: a number or a list beyond its limit.
  """
  for name, value in settings.items():
    if isinstance(value, list | tuple) and len(value) > _MAX_ENTRIES:
      raise UserError(
        f'the setting {name} has {len(value)} entries: at most {_MAX_ENTRIES} are '
        'allowed.'
      )
    if not isinstance(value, int | float):
      continue
    limits = [
      limit
      for ending, limit in _MAX_BY_ENDING.items()
      if name.lower().endswith(ending.lower())
    ]
    limit = min([_MAX_NUMBER, *limits])
    if not -_MAX_NUMBER <= value <= limit:
      raise UserError(
        f'the setting {name} is {value:g}: allowed are values from {-_MAX_NUMBER:g} to '
        f'{limit:g}.'
      )


UNKNOWN_DATASET = 'name_your_set'  # to be replaced by --config.data.name


def complete_config(
  sections: RawConfig, dataset: str, images_seen: int, images_per_step: int
) -> RawConfig:
  """Adds data, length and logging to a raw config: a million more images by default."""
  intervals = {'metrics_every': 100, 'grid_every': 1000, 'checkpoint_every': 1000}
  return {
    **sections,
    'data': {'name': dataset},
    'train': {'images': images_seen + 1_000_000, **sections.get('train', {})},
    'log': {key: steps * images_per_step for key, steps in intervals.items()},
  }
