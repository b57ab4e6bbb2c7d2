"""The optimizer sections of a config."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class AdamConfig:
  """Adam after orthogonal regularisation: the sections `g_adam` and `d_adam`.

  See `gan_jax.training.optimizers.make_optimizer`. The learning rates are those of the
  schedule.
  """

  beta1: float = 0.0
  beta2: float = 0.999
  eps: float = 1e-8  # outside the root, added after bias correction
  tf_eps: bool = False  # added before bias correction, as TensorFlow does
  ortho: float = 0.0  # strength of the orthogonal regularisation; 0: none
