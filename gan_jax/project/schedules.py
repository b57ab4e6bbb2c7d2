"""Learning rate and noise of a projection (projector.py of StyleGAN2-ADA)."""

import numpy as np
from jaxtyping import Float

LEARNING_RATE = 0.1
RAMP_UP, RAMP_DOWN = 0.05, 0.25  # of all steps
NOISE = 0.05  # of the latent, relative to its standard deviation
NOISE_END = 0.75  # of all steps: no noise from there on


def learning_rates(steps: int) -> Float[np.ndarray, ' steps']:
  """The learning rate of each step: a linear start, a cosine at the end.

  That of the first step is 0: it only moves the averages of Adam.
  """
  t = np.arange(steps) / steps
  down = 0.5 - 0.5 * np.cos(np.pi * np.minimum(1, (1 - t) / RAMP_DOWN))
  return LEARNING_RATE * down * np.minimum(1, t / RAMP_UP)


def noise_scales(steps: int) -> Float[np.ndarray, ' steps']:
  """The standard deviation of the noise that each step adds to the latent.

  Relative to that of the latent.
  """
  t = np.arange(steps) / steps
  return NOISE * np.maximum(0, 1 - t / NOISE_END) ** 2
