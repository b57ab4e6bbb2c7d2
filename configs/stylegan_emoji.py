"""StyleGAN on the embedded emoji, 8 to 32 pixels: six minutes on a laptop.

  python -m gan_jax.main --config=configs/stylegan_emoji.py --workdir=runs/stylegan

Variants: none, and tiny, which runs two steps at each of two resolutions.
"""

from ml_collections import ConfigDict


def get_config(variant: str = '') -> ConfigDict:
  if variant not in ('', 'tiny'):
    raise ValueError(f'stylegan_emoji has no variant {variant!r}: tiny, or none')
  tiny = variant == 'tiny'
  widths = (4, 4, 4) if tiny else (64, 64, 64, 32, 16)  # at 1x1, 4x4, ...
  return ConfigDict(
    dict(
      model=dict(
        family='stylegan',
        res=8 if tiny else 32,
        n_classes=6,
        dim_z=4 if tiny else 64,
        dim_w=4 if tiny else 64,
        mapping_layers=2 if tiny else 4,
        mapping_width=4 if tiny else 64,
        # At the default of 0.01 the mapping network hardly learns in so few steps.
        mapping_lrmul=0.1,
        # WGAN-GP keeps more variety within a class: experiments/growing_demos.
        loss='logistic' if tiny else 'wgan',
        g_widths=widths,
        d_widths=widths,
      ),
      schedule=dict(
        resolutions=(4, 8) if tiny else (8, 16, 32),
        batch=(8,) if tiny else (16,),
        stabilise=4 if tiny else 6_000,
        fade=8 if tiny else 5_000,
        g_lr=(6e-3,),
        d_lr=(6e-3,),
        ema_half_life=8_000,
      ),
      g_adam=dict(beta1=0.0, beta2=0.99, tf_eps=True),
      d_adam=dict(beta1=0.0, beta2=0.99, tf_eps=True),
      data=dict(name='emoji'),
      train=dict(images=16 if tiny else 68_000),
      log=dict(
        metrics_every=8 if tiny else 1_000,
        grid_every=16 if tiny else 4_000,
        checkpoint_every=16 if tiny else 16_000,
        grid_rows=6,
        grid_columns=12,
      ),
    )
  )
