"""ProGAN on CelebA at 128 x 128 (Karras et al. 2018, arXiv:1710.10196).

  python -m gan_jax.main --config=configs/progan_celeba.py --workdir=DIR

Variants: 4gpu, 2gpu, 1gpu (the repository's presets; the default is that for 8 GPUs),
paper (section 6.1, by the repository's Theano version), the rows of the paper's table 1
(`TABLE1` below), pod (large batches), tiny (two steps, a laptop). The center square of
each image is used. `celeb_a` must be prepared once by tensorflow-datasets. The table's
other half: --config.data.name=lsun/bedroom.
"""

from ml_collections import ConfigDict

# Batch size and learning rate at 4, 8, ... 128 pixels. The default, 4gpu, 2gpu and
# 1gpu are presets of the official repository (config.py); batch sizes are totals.
PRESETS = {
  '': ((512, 256, 128, 64, 32, 32), (1e-3, 1e-3, 1e-3, 1e-3, 1e-3, 1.5e-3)),
  '4gpu': ((512, 256, 128, 64, 32, 16), (1e-3, 1e-3, 1e-3, 1e-3, 1e-3, 1e-3)),
  '2gpu': ((256, 256, 128, 64, 32, 16), (1e-3, 1e-3, 1e-3, 1e-3, 1e-3, 1e-3)),
  '1gpu': ((128, 128, 128, 64, 32, 16), (1e-3, 1e-3, 1e-3, 1e-3, 1e-3, 1e-3)),
  # the Theano version, section 6.1
  'paper': ((16, 16, 16, 16, 16, 16), (1e-3, 1e-3, 1e-3, 1e-3, 1e-3, 1e-3)),
  # the Theano version: table 1, (a) at the final resolution only
  'table1_a': ((64,), (1e-4,)),
  'table1_b': ((64,), (1e-4,)),
  'table1_c': ((16,), (1e-4,)),
  'table1_d': ((16,), (1e-4,)),
  'table1_e_star': ((16,), (1e-4,)),
  'table1_e': ((16,), (1e-4,)),
  'table1_f': ((16,), (1e-3,)),
}

# fmap_base 2048 instead of 8192: a quarter of the channels at high resolutions.
PAPER = dict(
  g_widths=(512, 512, 512, 256, 128, 64, 32),
  d_widths=(512, 512, 512, 256, 128, 64, 32),
  d_fused=False,  # the Theano version
  mbstd_group=16,  # the Theano version: the whole batch
)
# Rows of table 1 of the paper, from the Theano version. (a): Gulrajani et al. 2017,
# (b): and growing, (c): and a small batch, (d): and revised settings, (e*): and
# minibatch discrimination, (e): or minibatch standard deviation, (f): and equalized
# rates. (g) is the variant of section 6.1 above.
GULRAJANI = dict(
  dim_z=128,
  normalize_z=False,
  g_batch_norm=True,
  g_norm=False,
  g_relu=True,
  g_tanh=True,
  d_layer_norm=True,
  equalized=False,
  mbstd_group=1,
  drift=0.0,
)
TABLE1 = {
  'table1_a': GULRAJANI,
  'table1_b': GULRAJANI,
  'table1_c': GULRAJANI,
  'table1_d': dict(g_norm=False, equalized=False, mbstd_group=1),
  'table1_e_star': dict(
    g_norm=False, equalized=False, mbstd_group=1, mbdisc_kernels=100
  ),
  'table1_e': dict(g_norm=False, equalized=False),
  'table1_f': dict(g_norm=False),
}
EMA = {  # the Theano version: 0.999 to the power of batch / 16 and of D steps
  'table1_a': 0.999**20,
  'table1_b': 0.999**20,
  'table1_c': 0.999**5,
}

TINY = dict(dim_z=4, g_widths=(4, 4, 4), d_widths=(4, 4, 4))
# On pods k times the batch takes sqrt(k) times the rate: the square-root rule for Adam
# (Malladi et al. 2022, arXiv:2205.10287). The EMA half-life stays in images.
POD_BATCH = (2048, 2048, 2048, 1024, 512, 512)
VARIANTS = ('', 'paper', *TABLE1, '4gpu', '2gpu', '1gpu', 'pod', 'tiny')


def get_config(variant: str = '') -> ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(
      f'progan_celeba has no variant {variant!r}: {", ".join(filter(None, VARIANTS))}'
    )
  tiny, pod = variant == 'tiny', variant == 'pod'
  paper = variant == 'paper' or variant in TABLE1
  gulrajani = TABLE1.get(variant) is GULRAJANI
  resolutions = tuple(4 << i for i in range(6))
  if variant == 'table1_a':
    resolutions = resolutions[-1:]  # without growing
  batch, rate = PRESETS.get(variant, PRESETS[''])
  if pod:
    rate = tuple(r * (k / b) ** 0.5 for r, k, b in zip(rate, POD_BATCH, batch))
    batch = POD_BATCH
  return ConfigDict(
    dict(
      model=dict(
        family='progan',
        res=8 if tiny else 128,
        **{**(PAPER if paper else {}), **TABLE1.get(variant, {})},
        **(TINY if tiny else {}),
      ),
      schedule=dict(
        resolutions=(4, 8) if tiny else resolutions,
        batch=(8,) if tiny else batch,
        # paper, appendix A.1: 800,000; the repository: 600,000
        stabilise=4 if tiny else 800_000 if paper else 600_000,
        fade=8 if tiny else 800_000 if paper else 600_000,
        g_lr=(1e-3,) if tiny else rate,
        d_lr=(1e-3,) if tiny else rate,
        ema=EMA.get(variant, 0.999),  # paper, appendix A.1; for all batch sizes
        ema_half_life=22_000 if pod else 0,  # ours: equals 0.999 at batch 32
        minibatch_repeats=1 if tiny or pod or paper else 4,  # the repository
      ),
      # paper, appendix A.1; tf_eps: the repository
      g_adam=dict(beta1=0.0, beta2=0.9 if gulrajani else 0.99, tf_eps=True),
      d_adam=dict(beta1=0.0, beta2=0.9 if gulrajani else 0.99, tf_eps=True),
      data=dict(name='synthetic' if tiny else 'celeb_a', flip=True, threads=64),
      train=dict(
        # paper, section 6.1; the repository
        images=16 if tiny else 10_000_000 if paper else 12_000_000,
        d_steps=5 if gulrajani else 1,  # the Theano version
      ),
      log=dict(
        metrics_every=8 if tiny else 10_000,
        grid_every=16 if tiny else 100_000,
        checkpoint_every=16 if tiny else 200_000,
      ),
    )
  )
