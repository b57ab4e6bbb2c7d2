"""The optimizer sections of a config."""

import dataclasses

from gan_jax.runtime.keys import key


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamConfig:
  """Adam with orthogonal regularization: the sections `g_adam` and `d_adam`.

  `gan_jax.training.optimizers.make_optimizer` builds it. Learning rates belong to the
  schedule.
  """

  beta1: float = key(0.0, 'decay of the first moment', at_least=0, at_most=1)
  beta2: float = key(0.999, 'decay of the second moment', at_least=0, at_most=1)
  eps: float = key(
    1e-8, 'added to the root of the bias-corrected second moment', at_least=0
  )
  tf_eps: bool = key(False, 'add eps before the bias correction, as TensorFlow does')
  ortho: float = key(0.0, 'strength of the orthogonal regularization; 0: none')
