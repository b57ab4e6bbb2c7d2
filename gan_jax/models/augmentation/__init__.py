"""Augmentation of the images that D sees: DiffAugment and ADA.

`Augmentation` holds the settings; a family's losses call the `Augment` that it makes.
"""

from gan_jax.models.augmentation.augmentation import (
  OFF,
  UNAUGMENTED,
  Augment,
  Augmentation,
  Role,
)

__all__ = ['OFF', 'UNAUGMENTED', 'Augment', 'Augmentation', 'Role']
