"""The controls of the explorer: their values, and which of them a generator has."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from gan_jax.sampling.class_names import format_labels

MAX_TRUNCATION = 3.0  # upper end of the slider, where truncation is off
PHOTOGRAPH_PSI = 1.0  # of projected latents
DRAFT_STANDING = 1  # batches of standing statistics while a slider moves


@dataclasses.dataclass
class ControlValues:
  """The values of all controls of the page.

  `mode` is 'single' (one image), 'grid' (consecutive seeds), 'mixing' (styles of
  another seed) or 'interpolation' (between pinned seeds). A photograph is shown in the
  modes 'single' and 'mixing'. `strengths` are those of directions, by name.
  """

  mode: str = 'single'
  seed: int = 0
  label: int | None = None  # None: drawn from each seed
  truncation: float = MAX_TRUNCATION
  psi: float = 1.0
  truncated_layers: int = 0  # on which psi acts in a StyleGAN
  noise_strength: float = 1.0
  n_seeds: int = 12  # in mode 'grid'
  style_seed: int = 1  # whose styles are taken in mode 'mixing'
  styles: Sequence[str] = ('coarse',)
  photograph: str = ''  # whose latents are taken in place of `seed`
  strengths: Mapping[str, float] = dataclasses.field(default_factory=dict)
  pinned_seeds: Sequence[int] = (1, 2)
  frames: int = 24  # from one pinned seed to the next
  loop: bool = False  # from the last pinned seed on to the first
  frame: int = 0  # the one on display

  @property
  def shown_photograph(self) -> str:
    """The photograph that is on display; '' where it is a seed."""
    return self.photograph if self.mode in ('single', 'mixing') else ''


@dataclasses.dataclass(frozen=True)
class Capabilities:
  """Which controls apply to a generator."""

  class_names: tuple[str, ...] = ()  # with the label, 3 cat
  style_based: bool = False
  n_layers: int = 0  # of the synthesis network
  truncated_layers: int = 0  # default number of layers on which psi acts
  psi: float = 1.0  # where a command line has none
  style_ranges: tuple[str, ...] = ()  # names such as 'coarse'
  standing_statistics: bool = False  # taken anew for each truncation
  spaces: tuple[str, ...] = ()  # that photographs are projected into


def shared_options(
  capabilities: Capabilities, values: ControlValues, draft: bool
) -> dict[str, Any]:
  """Options that do not depend on the mode."""
  psi, photograph = round(values.psi, 4), values.shown_photograph
  default = PHOTOGRAPH_PSI if photograph else capabilities.psi
  # Style mixing has seeds too, which may have another psi by default.
  keeps_psi = psi == default and not (photograph and values.mode == 'mixing')
  options: dict[str, Any] = {'psi': None if keeps_psi else psi}
  has_label = bool(photograph) and capabilities.style_based  # in its w
  if values.label is not None and capabilities.class_names and not has_label:
    names = [entry.partition(' ')[2] for entry in capabilities.class_names]
    options['classes'] = format_labels(values.label, names)
  if values.truncation < MAX_TRUNCATION:
    options['truncation'] = round(values.truncation, 4)
  if capabilities.style_based:
    options['noise_strength'] = round(values.noise_strength, 4)
    if values.truncated_layers != capabilities.truncated_layers:
      options['truncated_layers'] = int(values.truncated_layers)
  if capabilities.standing_statistics and draft:
    options['standing'] = DRAFT_STANDING
  return options
