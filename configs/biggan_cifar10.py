"""BigGAN on CIFAR-10 by the published script of BigGAN-PyTorch (launch_cifar_ema.sh).

  python -m gan_jax.main --config=configs/biggan_cifar10.py --workdir=DIR

One GPU, 500 epochs. Variants: none, and tiny, which runs two steps on a laptop.
"""

from ml_collections import ConfigDict


def get_config(variant: str = '') -> ConfigDict:
  if variant not in ('', 'tiny'):
    raise ValueError(f'biggan_cifar10 has no variant {variant!r}: tiny, or none')
  tiny = variant == 'tiny'
  batch, d_steps = (8, 4) if tiny else (50, 4)
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
        sn_eps=1e-8,
        g_init='N02',
        d_init='N02',
      ),
      schedule=dict(
        batch=batch, g_lr=2e-4, d_lr=2e-4, ema=0.9999, ema_start=1_000 * per_step
      ),
      g_adam=dict(beta1=0.0, beta2=0.999),
      d_adam=dict(beta1=0.0, beta2=0.999),
      data=dict(name='synthetic' if tiny else 'cifar10'),  # no flips: the script
      train=dict(images=2 * per_step if tiny else 500 * 50_000, d_steps=d_steps),
      log=dict(
        metrics_every=(1 if tiny else 100) * per_step,
        grid_every=(2 if tiny else 1_000) * per_step,
        checkpoint_every=(2 if tiny else 5_000) * per_step,
        grid_rows=10,
      ),
    )
  )
