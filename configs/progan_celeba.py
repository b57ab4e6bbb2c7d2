"""ProGAN on CelebA at 128 x 128 (Karras et al. 2018, arXiv:1710.10196).

  python -m gan_jax.main --config=configs/progan_celeba.py --workdir=DIR

Variants: pod (large batches), tiny (two steps, a laptop). The centre square of each
image is used. `celeb_a` must be prepared once by tensorflow-datasets.
"""

from ml_collections import ConfigDict

# From the original's 8-GPU configuration, for 4, 8, ... 128 pixels.
BATCH = (512, 256, 128, 64, 32, 32)
RATE = (1e-3, 1e-3, 1e-3, 1e-3, 1e-3, 1.5e-3)

TINY = dict(dim_z=4, g_widths=(4, 4, 4), d_widths=(4, 4, 4))
# On pods k times the batch takes sqrt(k) times the rate: the square-root rule for Adam
# (Malladi et al. 2022, arXiv:2205.10287). The EMA half-life stays in images.
POD_BATCH = (2048, 2048, 2048, 1024, 512, 512)


def get_config(variant: str = '') -> ConfigDict:
  if variant not in ('', 'pod', 'tiny'):
    raise ValueError(f'progan_celeba has no variant {variant!r}: pod, tiny, or none')
  tiny, pod = variant == 'tiny', variant == 'pod'
  batch, rate = (8,) if tiny else POD_BATCH if pod else BATCH, RATE
  if pod:
    rate = tuple(r * (k / b) ** 0.5 for r, k, b in zip(RATE, POD_BATCH, BATCH))
  return ConfigDict(
    dict(
      model=dict(
        family='progan',
        res=8 if tiny else 128,
        **(TINY if tiny else {}),
      ),
      schedule=dict(
        resolutions=(4, 8) if tiny else tuple(4 << i for i in range(6)),
        batch=batch,
        stabilise=4 if tiny else 600_000,  # paper
        fade=8 if tiny else 600_000,  # paper
        g_lr=(1e-3,) if tiny else rate,
        d_lr=(1e-3,) if tiny else rate,
        ema=0.999,  # the original's, for all batch sizes
        ema_half_life=22_000 if pod else 0,  # equals 0.999 at batch 32
      ),
      g_adam=dict(beta1=0.0, beta2=0.99, tf_eps=True),  # paper
      d_adam=dict(beta1=0.0, beta2=0.99, tf_eps=True),
      data=dict(name='synthetic' if tiny else 'celeb_a', flip=True, threads=64),
      train=dict(
        images=16 if tiny else 12_000_000
      ),  # the repository; the paper stops at 10M
      log=dict(
        metrics_every=8 if tiny else 10_000,
        grid_every=16 if tiny else 100_000,
        checkpoint_every=16 if tiny else 200_000,
      ),
    )
  )
