"""StyleGAN on LSUN bedrooms at 256 x 256 (Karras et al. 2019, arXiv:1812.04948).

  python -m gan_jax.main --config=configs/stylegan_lsun.py --workdir=DIR

Variants: 4gpu, 2gpu, 1gpu (the repository's presets; the default is that for 8 GPUs),
pod (large batches), bf16 (bfloat16 in the highest resolutions), tiny (two steps, a
laptop). 25M images are the repository's default; the paper trained longer. Another
category: --config.data.name=lsun/cat. LSUN must be prepared once by
tensorflow-datasets.
"""

from ml_collections import ConfigDict

# Batch size at 8, 16, ... 256 pixels and number of GPUs. The default, 4gpu, 2gpu and
# 1gpu are presets of the official repository (train.py); batch sizes are totals.
PRESETS = {
  '': ((256, 128, 64, 32, 32, 32), 8),
  '4gpu': ((256, 128, 64, 32, 16, 16), 4),
  '2gpu': ((256, 128, 64, 32, 16, 8), 2),
  '1gpu': ((128, 128, 64, 32, 16, 8), 1),
}
# At 8, 16, ... pixels, for every number of GPUs.
RATE = (1e-3, 1e-3, 1e-3, 1e-3, 1.5e-3, 2e-3)

TINY = dict(
  dim_z=4,
  dim_w=4,
  mapping_layers=2,
  mapping_width=4,
  g_widths=(4,) * 3,
  d_widths=(4,) * 3,
)
# The four highest resolutions, as num_fp16_res=4 of StyleGAN2-ADA.
BF16 = dict(bfloat16_from=32)
# On pods k times the batch takes sqrt(k) times the rate: the square-root rule for Adam
# (Malladi et al. 2022, arXiv:2205.10287). The EMA half-life stays in images.
POD_BATCH = (2048, 2048, 1024, 512, 512, 512)
VARIANTS = ('', '4gpu', '2gpu', '1gpu', 'pod', 'bf16', 'tiny')


def get_config(variant: str = '') -> ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(
      f'stylegan_lsun has no variant {variant!r}: {", ".join(filter(None, VARIANTS))}'
    )
  tiny, pod = variant == 'tiny', variant == 'pod'
  (batch, gpus), rate = PRESETS.get(variant, PRESETS['']), RATE
  if pod:
    rate = tuple(r * (k / b) ** 0.5 for r, k, b in zip(rate, POD_BATCH, batch))
    batch = POD_BATCH
  return ConfigDict(
    dict(
      model=dict(
        family='stylegan',
        res=8 if tiny else 256,
        # the repository: one per GPU; pod, ours: for as many images as on a GPU at 1024
        mixing_groups=1 if tiny else 128 if pod else gpus,
        **(TINY if tiny else {}),
        **(BF16 if variant == 'bf16' else {}),
      ),
      schedule=dict(
        resolutions=(4, 8) if tiny else tuple(8 << i for i in range(6)),
        batch=(8,) if tiny else batch,
        stabilise=4 if tiny else 600_000,  # the repository
        fade=8 if tiny else 600_000,  # the repository
        g_lr=(1e-3,) if tiny else rate,
        d_lr=(1e-3,) if tiny else rate,
        ema_half_life=10_000,  # the repository
        minibatch_repeats=1 if tiny or pod else 4,  # the repository
      ),
      g_adam=dict(beta1=0.0, beta2=0.99, tf_eps=True),  # the repository
      d_adam=dict(beta1=0.0, beta2=0.99, tf_eps=True),
      data=dict(name='synthetic' if tiny else 'lsun/bedroom', flip=False, threads=64),
      train=dict(images=16 if tiny else 25_000_000),  # the repository
      log=dict(
        metrics_every=8 if tiny else 10_000,
        grid_every=16 if tiny else 100_000,
        checkpoint_every=16 if tiny else 200_000,
      ),
    )
  )
