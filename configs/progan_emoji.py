"""ProGAN on the embedded emoji, 8 to 32 pixels, six classes: eight minutes on a laptop.

  python -m gan_jax.main --config=configs/progan_emoji.py --workdir=runs/progan

Variants: none, and tiny, which runs two steps at each of two resolutions.
"""

from ml_collections import ConfigDict


def get_config(variant: str = '') -> ConfigDict:
  if variant not in ('', 'tiny'):
    raise ValueError(f'progan_emoji has no variant {variant!r}: tiny, or none')
  tiny = variant == 'tiny'
  widths = (4, 4, 4) if tiny else (96, 96, 96, 64, 32)  # at 1x1, 4x4, ...
  return ConfigDict(
    dict(
      model=dict(
        family='progan',
        res=8 if tiny else 32,
        n_classes=6,
        dim_z=4 if tiny else 64,
        g_widths=widths,
        d_widths=widths,
      ),
      schedule=dict(
        resolutions=(4, 8) if tiny else (8, 16, 32),
        batch=(8,) if tiny else (16,),
        stabilise=4 if tiny else 5_000,
        fade=8 if tiny else 4_000,
        g_lr=(1.2e-2,),  # the best tried in experiments/batch_study
        d_lr=(1.2e-2,),
        ema=0.99,
      ),
      g_adam=dict(beta1=0.0, beta2=0.99, tf_eps=True),
      d_adam=dict(beta1=0.0, beta2=0.99, tf_eps=True),
      data=dict(name='emoji', flip=True),
      train=dict(images=16 if tiny else 50_000),
      log=dict(
        metrics_every=8 if tiny else 1_000,
        grid_every=16 if tiny else 4_000,
        checkpoint_every=16 if tiny else 16_000,
        grid_rows=6,
        grid_columns=12,
      ),
    )
  )
