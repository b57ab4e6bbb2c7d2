"""SAGAN on ImageNet at 128 x 128 by BigGAN-PyTorch's launch_SAGAN_bs128x2_ema.sh.

  python -m gan_jax.main --config=configs/sagan_imagenet.py --workdir=DIR

The paper is Zhang et al. 2019, arXiv:1805.08318. Variants: tiny (two steps, a laptop).
ImageNet must be prepared once by tensorflow-datasets (extra `prepare`).
"""

from ml_collections import ConfigDict

VARIANTS = ('', 'tiny')


def get_config(variant: str = '') -> ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f'sagan_imagenet has no variant {variant!r}: tiny, or none')
  tiny = variant == 'tiny'
  batch, accum = (8, 2) if tiny else (256, 2)  # the script: 128 times 2
  return ConfigDict(
    dict(
      model=dict(
        family='biggan',
        res=16 if tiny else 128,
        n_classes=10 if tiny else 1000,
        dim_z=128,  # the code's default
        shared_dim=128,  # the script shares it; as long as z
        hier=False,
        g_ch=8 if tiny else 64,  # the code's default
        d_ch=8 if tiny else 64,
        g_widths=(2, 2, 1) if tiny else (),
        d_widths=(1, 2) if tiny else (),
        g_attention=(8,) if tiny else (64,),  # the script
        d_attention=(8,) if tiny else (64,),
        bn_eps=1e-5,  # the script
        sn_eps=1e-8,  # the script
        g_init='xavier',  # the script
        d_init='xavier',
      ),
      schedule=dict(
        batch=batch,
        g_lr=1e-4,  # the script
        d_lr=4e-4,  # the script
        ema=0.9999,  # the code's default
        ema_start=(0 if tiny else 2_000) * batch,  # the script
      ),
      g_adam=dict(beta1=0.0, beta2=0.999, eps=1e-8),  # the script
      d_adam=dict(beta1=0.0, beta2=0.999, eps=1e-8),
      data=dict(name='synthetic' if tiny else 'imagenet2012', threads=64),
      train=dict(
        # 100 epochs, the code's default
        images=2 * batch if tiny else 100 * 1_281_167,
        accum=accum,
      ),
      log=dict(
        metrics_every=(1 if tiny else 100) * batch,
        grid_every=(2 if tiny else 1_000) * batch,
        checkpoint_every=(2 if tiny else 1_000) * batch,
      ),
    )
  )
