"""The runs on few images: which there are, and their settings."""

from typing import NamedTuple

SEEDS = (0, 1)


class Series(NamedTuple):
  """Runs of one config that differ in their images, augmentation and seed."""

  fractions: tuple[str, ...]
  augmentations: dict[str, dict[str, str]]  # name -> settings
  settings: dict[str, str]


SERIES = {
  # Narrow and short, since there are eighteen runs.
  'progan': Series(
    ('1%', '10%', '100%'),
    {
      'none': {},
      'diffaugment': {'augment.policy': 'translation'},
      # The loss is WGAN-GP, where the sign of D's scores says nothing: p is fixed.
      'ada': {'augment.pipe': 'bgc', 'augment.fixed_p': '0.3'},
    },
    {
      'model.g_widths': '32,32,32,16,8',
      'model.d_widths': '32,32,32,16,8',
      'schedule.g_lr': '1.2e-2',
      'schedule.d_lr': '1.2e-2',
      'schedule.ema': '0.998',
      'train.images': '100_000',
      'log.grid_every': '50_000',
      'log.checkpoint_every': '25_000',
    },
  ),
  # Long enough for D to memorize its 600 images.
  'biggan': Series(
    ('1%',),
    {
      'none': {},
      'diffaugment': {'augment.policy': 'translation'},
      'ada': {
        'augment.pipe': 'bg',
        'augment.target': '0.3',
        'augment.ramp': '100_000',
      },
    },
    {
      'train.images': '800_000',
      'log.grid_every': '100_000',
      'log.checkpoint_every': '100_000',
    },
  ),
}


class Cell(NamedTuple):
  """One of the runs."""

  series: str
  fraction: str
  augmentation: str
  seed: int

  @property
  def run(self) -> str:
    """Name of its workdir."""
    share = self.fraction.removesuffix('%')
    return f'{self.series}-{share}-{self.augmentation}-{self.seed}'

  @property
  def settings(self) -> dict[str, str]:
    """Settings that differ from those of the series' config."""
    series = SERIES[self.series]
    return {
      **series.settings,
      **series.augmentations[self.augmentation],
      'data.split': f'train[:{self.fraction}]',
      'train.seed': str(self.seed),
      'log.keep': '100',
      'log.trackers': '()',
    }


def cells() -> list[Cell]:
  """All runs, those of a seed in turn."""
  return [
    Cell(name, fraction, augmentation, seed)
    for seed in SEEDS
    for name, series in SERIES.items()
    for fraction in series.fractions
    for augmentation in series.augmentations
  ]


def runs_of(series: str) -> dict[str, dict[str, list[str]]]:
  """Fraction -> augmentation -> the runs of all seeds."""
  found: dict[str, dict[str, list[str]]] = {}
  for cell in cells():
    if cell.series == series:
      rows = found.setdefault(cell.fraction, {})
      rows.setdefault(cell.augmentation, []).append(cell.run)
  return found
