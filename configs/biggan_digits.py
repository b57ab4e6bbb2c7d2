"""BigGAN on scikit-learn's digits at 16 x 16: a laptop CPU in under five minutes.

  python -m gan_jax.main --config=configs/biggan_digits.py --workdir=runs/digits

Variants: none, and tiny, which runs two steps. Needs scikit-learn (extra `digits`).
"""

from ml_collections import ConfigDict


def get_config(variant: str = '') -> ConfigDict:
  if variant not in ('', 'tiny'):
    raise ValueError(f'biggan_digits has no variant {variant!r}: tiny, or none')
  tiny = variant == 'tiny'
  batch = 8 if tiny else 64
  return ConfigDict(
    dict(
      model=dict(
        family='biggan',
        res=16,
        n_classes=10,
        channels=1,
        dim_z=48,
        shared_dim=32,
        g_ch=4 if tiny else 32,
        d_ch=4 if tiny else 32,
        g_widths=(4, 2, 1),
        d_widths=(1, 2, 4),
      ),
      schedule=dict(batch=batch, g_lr=4e-4, d_lr=6e-4, ema=0.995),
      g_adam=dict(beta1=0.0, beta2=0.99, ortho=1e-4),
      d_adam=dict(beta1=0.0, beta2=0.99),
      data=dict(name='digits'),
      train=dict(images=2 * batch if tiny else 110_000),
      log=dict(
        metrics_every=batch if tiny else 2_000,
        grid_every=2 * batch if tiny else 10_000,
        checkpoint_every=2 * batch if tiny else 55_000,
        grid_rows=10,
        grid_columns=12,
      ),
    )
  )
