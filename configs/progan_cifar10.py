"""ProGAN on CIFAR-10 (Karras et al. 2018, arXiv:1710.10196).

  python -m gan_jax.main --config=configs/progan_cifar10.py --workdir=DIR

Variants: paper (the inception score of 8.80 without labels, table 3), cond (labels),
4gpu, 2gpu, 1gpu (the repository's presets; the default is that for 8 GPUs), pod (large
batches), tiny (two steps, a laptop). The repository says of its TensorFlow presets that
they do not reproduce 8.80; `paper` has the settings of its Theano version.
"""

from ml_collections import ConfigDict

# Batch size and learning rate at 4, 8, ... 32 pixels. The default, 4gpu, 2gpu and
# 1gpu are presets of the official repository (config.py); batch sizes are totals.
PRESETS = {
  '': ((512, 256, 128, 64), (1e-3, 1e-3, 1e-3, 1e-3)),
  '4gpu': ((512, 256, 128, 64), (1e-3, 1e-3, 1e-3, 1e-3)),
  '2gpu': ((256, 256, 128, 64), (1e-3, 1e-3, 1e-3, 1e-3)),
  '1gpu': ((128, 128, 128, 64), (1e-3, 1e-3, 1e-3, 1e-3)),
  # the Theano version, section 6.5
  'paper': ((16, 16, 16, 16), (1e-3, 1e-3, 1e-3, 1e-3)),
}

# At most 128 channels; fmap_base 4096 would allow more at every resolution.
PAPER = dict(dim_z=128, g_widths=(128,) * 5, d_widths=(128,) * 5)
TINY = dict(dim_z=4, g_widths=(4, 4, 4), d_widths=(4, 4, 4))
# On pods k times the batch takes sqrt(k) times the rate: the square-root rule for Adam
# (Malladi et al. 2022, arXiv:2205.10287). The EMA half-life stays in images.
POD_BATCH = (2048, 2048, 2048, 1024)
VARIANTS = ('', 'paper', 'cond', '4gpu', '2gpu', '1gpu', 'pod', 'tiny')


def get_config(variant: str = '') -> ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(
      f'progan_cifar10 has no variant {variant!r}: {", ".join(filter(None, VARIANTS))}'
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
        res=8 if tiny else 32,
        n_classes=10 if variant == 'cond' else 0,
        mbstd_group=16 if paper else 4,
        d_fused=not paper,  # the Theano version downsamples after the activation
        gp_target=750.0 if paper else 1.0,  # the Theano version
        **(PAPER if paper else {}),
        **(TINY if tiny else {}),
      ),
      schedule=dict(
        resolutions=(4, 8) if tiny else tuple(4 << i for i in range(4)),
        batch=(8,) if tiny else batch,
        stabilise=4 if tiny else 400_000 if paper else 600_000,  # the repository
        fade=8 if tiny else 400_000 if paper else 600_000,  # the repository
        g_lr=(1e-3,) if tiny else rate,
        d_lr=(1e-3,) if tiny else rate,
        ema=0.999,  # paper, appendix A.1; for all batch sizes
        ema_half_life=22_000 if pod else 0,  # ours: equals 0.999 at batch 32
        minibatch_repeats=1 if tiny or pod or paper else 4,  # the repository
      ),
      # paper, appendix A.1; tf_eps: the repository
      g_adam=dict(beta1=0.0, beta2=0.99, tf_eps=True),
      d_adam=dict(beta1=0.0, beta2=0.99, tf_eps=True),
      data=dict(name='synthetic' if tiny else 'cifar10', flip=False, threads=64),
      train=dict(
        images=16 if tiny else 20_000_000 if paper else 12_000_000,  # the repository
        simultaneous=paper,
      ),
      log=dict(
        metrics_every=8 if tiny else 10_000,
        grid_every=16 if tiny else 100_000,
        checkpoint_every=16 if tiny else 200_000,
      ),
    )
  )
