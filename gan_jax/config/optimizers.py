"""The optimizer sections of a config."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class AdamConfig:
  """Adam with orthogonal regularization: the sections `g_adam` and `d_adam`.

  `gan_jax.training.optimizers.make_optimizer` builds it. Learning rates belong to the
  schedule.
  """

  beta1: float = 0.0
  beta2: float = 0.999
  eps: float = 1e-8  # added to the root of the bias-corrected second moment
  tf_eps: bool = False  # True: added before the bias correction, as in TensorFlow
  ortho: float = 0.0  # strength of the orthogonal regularization; 0: none
