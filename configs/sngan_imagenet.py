"""SNGAN on ImageNet at 128 x 128 by the script of BigGAN-PyTorch (launch_SNGAN.sh).

  python -m gan_jax.main --config=configs/sngan_imagenet.py --workdir=DIR

The paper is Miyato et al. 2018, arXiv:1802.05957. Variants: tiny (two steps, a laptop).
ImageNet must be prepared once by tensorflow-datasets (extra `prepare`).
"""

from ml_collections import ConfigDict

VARIANTS = ('', 'tiny')


def get_config(variant: str = '') -> ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f'sngan_imagenet has no variant {variant!r}: tiny, or none')
  tiny = variant == 'tiny'
  batch, d_steps = (8, 5) if tiny else (64, 5)  # the script
  per_step = batch * d_steps
  return ConfigDict(
    dict(
      model=dict(
        family='biggan',
        res=16 if tiny else 128,
        n_classes=10 if tiny else 1000,
        dim_z=128,  # the code's default
        shared_dim=0,  # one gain and bias per class
        hier=False,
        g_ch=4 if tiny else 64,  # the code's default
        d_ch=4 if tiny else 64,
        g_widths=(2, 2, 1) if tiny else (),
        d_widths=(1, 2) if tiny else (),
        d_wide=False,  # the script
        bn_eps=1e-5,  # the script
        sn_eps=1e-8,  # the script
        g_init='xavier',  # the script
        d_init='xavier',
      ),
      schedule=dict(batch=batch, g_lr=2e-4, d_lr=2e-4, ema=0.0),  # the script: no EMA
      g_adam=dict(beta1=0.0, beta2=0.9, eps=1e-8),  # the script
      d_adam=dict(beta1=0.0, beta2=0.9, eps=1e-8),
      data=dict(name='synthetic' if tiny else 'imagenet2012', threads=64),
      train=dict(
        # 100 epochs, the code's default
        images=2 * per_step if tiny else 100 * 1_281_167,
        d_steps=d_steps,
      ),
      log=dict(
        metrics_every=(1 if tiny else 100) * per_step,
        grid_every=(2 if tiny else 1_000) * per_step,
        checkpoint_every=(2 if tiny else 1_000) * per_step,
      ),
    )
  )
