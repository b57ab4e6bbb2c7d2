"""SNGAN on CIFAR-10: the script of BigGAN-PyTorch for ImageNet, at 32 x 32.

  python -m gan_jax.main --config=configs/sngan_cifar10.py --workdir=DIR

Networks, batch and optimizers are those of launch_SNGAN.sh (see sngan_imagenet.py); the
length is ours. The paper is Miyato et al. 2018, arXiv:1802.05957. Variants: tiny
(two steps, a laptop).
"""

from ml_collections import ConfigDict

VARIANTS = ('', 'tiny')


def get_config(variant: str = '') -> ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f'sngan_cifar10 has no variant {variant!r}: tiny, or none')
  tiny = variant == 'tiny'
  batch, d_steps = (8, 5) if tiny else (64, 5)  # the script
  per_step = batch * d_steps
  return ConfigDict(
    dict(
      model=dict(
        family='biggan',
        res=16 if tiny else 32,
        n_classes=10,
        dim_z=128,
        shared_dim=0,  # one gain and bias per class
        hier=False,
        g_ch=4 if tiny else 64,
        d_ch=4 if tiny else 64,
        g_widths=(2, 2, 1) if tiny else (),
        d_widths=(1, 2) if tiny else (),
        d_wide=False,  # the script
        sn_eps=1e-8,  # the script
        g_init='xavier',  # the script
        d_init='xavier',
      ),
      schedule=dict(batch=batch, g_lr=2e-4, d_lr=2e-4, ema=0.0),  # the script: no EMA
      g_adam=dict(beta1=0.0, beta2=0.9),  # the script
      d_adam=dict(beta1=0.0, beta2=0.9),
      data=dict(name='synthetic' if tiny else 'cifar10'),
      train=dict(images=2 * per_step if tiny else 500 * 50_000, d_steps=d_steps),
      log=dict(
        metrics_every=(1 if tiny else 100) * per_step,
        grid_every=(2 if tiny else 1_000) * per_step,
        checkpoint_every=(2 if tiny else 5_000) * per_step,
        grid_rows=10,
      ),
    )
  )
