"""BigGAN on Fashion-MNIST, 32 x 32 grey, ten classes: a quarter of an hour of one core.

  python -m gan_jax.prepare /usr/share/datasets/fashion-mnist sets/fashion_mnist \\
    --res=32 --channels=1 --border --background=black
  python -m gan_jax.main --config=configs/biggan_fashion.py --workdir=runs/fashion

The folder is that of Debian's package dataset-fashion-mnist. Any other with the idx
files will do, and so does fashion_mnist, the name of the tensorflow-datasets set.
Variants: none, and tiny, which runs two steps on synthetic images.
"""

from ml_collections import ConfigDict


def get_config(variant: str = '') -> ConfigDict:
  if variant not in ('', 'tiny'):
    raise ValueError(f'biggan_fashion has no variant {variant!r}: tiny, or none')
  tiny = variant == 'tiny'
  batch = 8 if tiny else 32
  return ConfigDict(
    dict(
      model=dict(
        family='biggan',
        res=16 if tiny else 32,
        n_classes=10,
        channels=1,
        dim_z=48 if tiny else 64,
        shared_dim=32,
        g_ch=4 if tiny else 16,
        d_ch=4 if tiny else 16,
        g_widths=(4, 2, 1) if tiny else (6, 4, 2, 1),
        d_widths=(1, 2, 4) if tiny else (1, 2, 4, 6),
      ),
      schedule=dict(batch=batch, g_lr=1e-3, d_lr=1e-3, ema=0.998, ema_start=0),
      g_adam=dict(beta1=0.0, beta2=0.99, ortho=1e-4),
      d_adam=dict(beta1=0.0, beta2=0.99),
      data=dict(name='synthetic' if tiny else './sets/fashion_mnist'),
      train=dict(images=2 * batch if tiny else 400_000, d_steps=1 if tiny else 2),
      log=dict(
        metrics_every=batch if tiny else 2_000,
        grid_every=2 * batch if tiny else 20_000,
        checkpoint_every=2 * batch if tiny else 50_000,
        grid_rows=10,
        grid_columns=12,
      ),
    )
  )
