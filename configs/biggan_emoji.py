"""BigGAN on the embedded emoji, 32 x 32, six classes: a laptop CPU in five minutes.

  python -m gan_jax.main --config=configs/biggan_emoji.py --workdir=runs/emoji

Variants: none, and tiny, which runs two steps.
"""

from ml_collections import ConfigDict


def get_config(variant: str = '') -> ConfigDict:
  if variant not in ('', 'tiny'):
    raise ValueError(f'biggan_emoji has no variant {variant!r}: tiny, or none')
  tiny = variant == 'tiny'
  batch = 8 if tiny else 16
  return ConfigDict(
    dict(
      model=dict(
        family='biggan',
        res=16 if tiny else 32,
        n_classes=6,
        dim_z=12 if tiny else 64,
        shared_dim=32,
        g_ch=4 if tiny else 16,
        d_ch=4 if tiny else 16,
        g_widths=(2, 2, 1) if tiny else (6, 4, 2, 1),
        d_widths=(1, 2) if tiny else (1, 2, 4, 6),
      ),
      schedule=dict(batch=batch, g_lr=4e-4, d_lr=5e-4, ema=0.999, ema_start=0),
      g_adam=dict(beta1=0.0, beta2=0.99, ortho=1e-4),
      d_adam=dict(beta1=0.0, beta2=0.99),
      data=dict(name='emoji', flip=True),
      augment=dict(policy='translation'),
      train=dict(images=2 * batch if tiny else 66_000),
      log=dict(
        metrics_every=batch if tiny else 1_000,
        grid_every=2 * batch if tiny else 4_000,
        checkpoint_every=2 * batch if tiny else 22_000,
        grid_rows=6,
        grid_columns=12,
      ),
    )
  )
