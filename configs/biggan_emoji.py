"""BigGAN on the embedded emoji, 32 x 32, nine classes: a laptop CPU in ten minutes."""

from ml_collections import ConfigDict


def get_config(variant: str = '') -> ConfigDict:
  """`:tiny` runs in seconds, to see that everything works."""
  tiny = variant == 'tiny'
  return ConfigDict(
    dict(
      model=dict(
        family='biggan',
        res=32,
        n_classes=9,
        dim_z=64,
        shared_dim=32,
        g_ch=48,
        d_ch=48,
        g_widths=(4, 4, 2, 1),
        d_widths=(1, 2, 4, 4),
      ),
      schedule=dict(g_lr=2e-4, d_lr=4e-4, ema=0.99, ema_start=0),
      g_adam=dict(beta1=0.0, beta2=0.99, ortho=1e-4),
      d_adam=dict(beta1=0.0, beta2=0.99),
      data=dict(name='emoji', flip=False),
      train=dict(images=100_000, batch=64),
      log=dict(
        metrics_every=1_000,
        sheet_every=10_000,
        checkpoint_every=50_000,
        sheet_rows=9,
        sheet_columns=12,
      ),
    )
  )
