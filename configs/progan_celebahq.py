"""ProGAN on CelebA-HQ at 1024 x 1024 (Karras et al. 2018, arXiv:1710.10196).

  python -m gan_jax.main --config=configs/progan_celebahq.py --workdir=DIR

Variants: 4gpu, 2gpu, 1gpu (the repository's presets; the default is that for 8 GPUs),
paper (section 6.3, by the repository's Theano version), pod (large batches), bf16
(bfloat16 in the highest resolutions), tiny (two steps, a laptop). The StyleGAN paper
reports FID 7.79 for the 8-GPU settings (its table 1, A). The data must be prepared once
by tensorflow-datasets as `celeb_a_hq/1024`.
"""

from ml_collections import ConfigDict

# Batch size and learning rate at 4, 8, ... 1024 pixels. The default, 4gpu, 2gpu and
# 1gpu are presets of the official repository (config.py); batch sizes are totals.
PRESETS = {
  '': (
    (512, 256, 128, 64, 32, 32, 32, 32, 32),
    (1e-3, 1e-3, 1e-3, 1e-3, 1e-3, 1.5e-3, 2e-3, 3e-3, 3e-3),
  ),
  '4gpu': (
    (512, 256, 128, 64, 32, 16, 16, 16, 16),
    (1e-3, 1e-3, 1e-3, 1e-3, 1e-3, 1e-3, 1.5e-3, 2e-3, 3e-3),
  ),
  '2gpu': (
    (256, 256, 128, 64, 32, 16, 8, 8, 8),
    (1e-3, 1e-3, 1e-3, 1e-3, 1e-3, 1e-3, 1e-3, 1.5e-3, 2e-3),
  ),
  '1gpu': (
    (128, 128, 128, 64, 32, 16, 8, 4, 4),
    (1e-3, 1e-3, 1e-3, 1e-3, 1e-3, 1e-3, 1e-3, 1e-3, 1.5e-3),
  ),
  # paper, appendix A.1; the Theano version, section 6.3
  'paper': (
    (16, 16, 16, 16, 16, 16, 14, 6, 3),
    (1e-3, 1e-3, 1e-3, 1e-3, 1e-3, 1e-3, 1e-3, 1e-3, 1e-3),
  ),
}

TINY = dict(dim_z=4, g_widths=(4, 4, 4), d_widths=(4, 4, 4))
# The four highest resolutions, as num_fp16_res=4 of StyleGAN2-ADA.
BF16 = dict(bfloat16_from=128)
# On pods k times the batch takes sqrt(k) times the rate: the square-root rule for Adam
# (Malladi et al. 2022, arXiv:2205.10287). The EMA half-life stays in images.
POD_BATCH = (2048, 2048, 2048, 1024, 512, 512, 512, 512, 512)
VARIANTS = ('', 'paper', '4gpu', '2gpu', '1gpu', 'pod', 'bf16', 'tiny')


def get_config(variant: str = '') -> ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(
      f'progan_celebahq has no variant {variant!r}: {", ".join(filter(None, VARIANTS))}'
    )
  tiny, pod, paper = variant == 'tiny', variant == 'pod', variant == 'paper'
  batch, rate = PRESETS.get(variant, PRESETS[''])
  if pod:
    rate = tuple(r * (k / b) ** 0.5 for r, k, b in zip(rate, POD_BATCH, batch))
    batch = POD_BATCH
  return ConfigDict(
    dict(
      model=dict(
        family='progan',
        res=8 if tiny else 1024,
        mbstd_group=16 if paper else 4,  # the Theano version: the whole batch
        d_fused=not paper,  # the Theano version downsamples after the activation
        **(TINY if tiny else {}),
        **(BF16 if variant == 'bf16' else {}),
      ),
      schedule=dict(
        resolutions=(4, 8) if tiny else tuple(4 << i for i in range(9)),
        batch=(8,) if tiny else batch,
        # paper, appendix A.1: 800,000; the repository: 600,000
        stabilise=4 if tiny else 800_000 if paper else 600_000,
        fade=8 if tiny else 800_000 if paper else 600_000,
        g_lr=(1e-3,) if tiny else rate,
        d_lr=(1e-3,) if tiny else rate,
        warmup=40_000 if paper else 0,  # the Theano version rises exponentially
        ema=0.999,  # paper, appendix A.1; for all batch sizes
        ema_half_life=22_000 if pod else 0,  # ours: equals 0.999 at batch 32
        minibatch_repeats=1 if tiny or pod or paper else 4,  # the repository
      ),
      # paper, appendix A.1; tf_eps: the repository
      g_adam=dict(beta1=0.0, beta2=0.99, tf_eps=True),
      d_adam=dict(beta1=0.0, beta2=0.99, tf_eps=True),
      data=dict(name='synthetic' if tiny else 'celeb_a_hq/1024', flip=True, threads=64),
      train=dict(
        # the Theano version; the repository
        images=16 if tiny else 19_000_000 if paper else 12_000_000
      ),
      log=dict(
        metrics_every=8 if tiny else 10_000,
        grid_every=16 if tiny else 100_000,
        checkpoint_every=16 if tiny else 200_000,
      ),
    )
  )
