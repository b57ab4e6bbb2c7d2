"""ProGAN on Fashion-MNIST, 8 to 32 pixels, grey, ten classes: two CPU cores.

  python -m gan_jax.main --config=configs/progan_fashion.py --workdir=runs/progan

biggan_fashion.py says how the images are prepared. Variants: none, and tiny, which runs
two steps at each of two resolutions, on synthetic images.
"""

from ml_collections import ConfigDict


def get_config(variant: str = '') -> ConfigDict:
  if variant not in ('', 'tiny'):
    raise ValueError(f'progan_fashion has no variant {variant!r}: tiny, or none')
  tiny = variant == 'tiny'
  widths = (4, 4, 4) if tiny else (64, 64, 64, 32, 16)  # at 1x1, 4x4, ...
  return ConfigDict(
    dict(
      model=dict(
        family='progan',
        res=8 if tiny else 32,
        n_classes=10,
        channels=1,
        dim_z=4 if tiny else 64,
        g_widths=widths,
        d_widths=widths,
      ),
      schedule=dict(
        resolutions=(4, 8) if tiny else (8, 16, 32),
        batch=(8,) if tiny else (16,),
        stabilise=4 if tiny else 6_000,
        fade=8 if tiny else 6_000,
        g_lr=(1.2e-2,),  # the best for the emoji, in experiments/batch_study
        d_lr=(1.2e-2,),
        # The last images at a third: more variety, experiments/fashion.
        lr_drop_after=350_000,
        lr_drop=1 / 3,
        ema=0.999,
      ),
      g_adam=dict(beta1=0.0, beta2=0.99, tf_eps=True),
      d_adam=dict(beta1=0.0, beta2=0.99, tf_eps=True),
      data=dict(name='synthetic' if tiny else './sets/fashion_mnist'),
      train=dict(images=16 if tiny else 400_000),
      log=dict(
        metrics_every=8 if tiny else 2_000,
        grid_every=16 if tiny else 20_000,
        checkpoint_every=16 if tiny else 50_000,
        grid_rows=10,
        grid_columns=12,
      ),
    )
  )
