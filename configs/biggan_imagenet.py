"""BigGAN on ImageNet (Brock et al. 2019, arXiv:1809.11096), batch 2048.

  python -m gan_jax.main --config=configs/biggan_imagenet.py:128 --workdir=DIR

Variants: 128 (the default), 256, 512, deep128, deep256, deep512, and tiny, which runs
two steps on a laptop. The paper's 128 px model reaches FID 8.7 and IS 98.8 (paper,
table 1: TPU v3, 128-512 cores, 24-48 hours). ImageNet must be prepared once by
tensorflow-datasets (extra `prepare`).
"""

from ml_collections import ConfigDict

# res, dim_z, ch, depth, remat; z in chunks of 20 (paper, appendix B), deep: 128.
VARIANTS = {
  '': (128, 120, 96, 0, False),
  '128': (128, 120, 96, 0, False),
  '256': (256, 140, 96, 0, True),
  '512': (512, 160, 96, 0, True),
  'deep128': (128, 128, 128, 2, False),
  'deep256': (256, 128, 128, 2, True),
  'deep512': (512, 128, 128, 2, True),
  'tiny': (16, 12, 4, 0, False),
}


def get_config(variant: str = '') -> ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(
      f'biggan_imagenet has no variant {variant!r}: {", ".join(filter(None, VARIANTS))}'
    )
  res, dim_z, ch, depth, remat = VARIANTS[variant]
  tiny = variant == 'tiny'
  # paper, table 1: the batch; appendix C: the steps
  batch, d_steps = (8, 2) if tiny else (2048, 2)
  per_step = batch * d_steps
  # paper, appendix C: another rate for BigGAN-deep beyond 128 pixels
  g_lr, d_lr = (2.5e-5, 2.5e-5) if depth and res > 128 else (5e-5, 2e-4)
  return ConfigDict(
    dict(
      model=dict(
        family='biggan',
        res=res,
        n_classes=10 if tiny else 1000,
        dim_z=dim_z,
        shared_dim=128,  # paper, appendix B
        g_ch=ch,
        d_ch=ch,
        g_widths=(2, 2, 1) if tiny else (),
        d_widths=(1, 2) if tiny else (),
        g_attention=(64,),  # paper, appendix B
        d_attention=(64,),
        depth=depth,
        bn_eps=1e-4,  # paper, appendix C
        rgb_bn_eps=1e-4,
        sn_eps=1e-4,
        remat=remat,
        dtype='bfloat16',
      ),
      schedule=dict(
        batch=batch,
        g_lr=g_lr,
        d_lr=d_lr,
        ema=0.9999,  # paper, appendix C
        ema_start=(0 if tiny else 20_000) * per_step,  # BigGAN-PyTorch
      ),
      # paper, appendix C; ortho: section 3.1; eps: BigGAN-PyTorch
      g_adam=dict(beta1=0.0, beta2=0.999, eps=1e-6, ortho=1e-4),
      d_adam=dict(beta1=0.0, beta2=0.999, eps=1e-6),
      # no flips: as the HDF5 path of BigGAN-PyTorch, and compare_gan
      data=dict(name='synthetic' if tiny else 'imagenet2012', threads=64),
      train=dict(
        images=(2 if tiny else 150_000) * per_step,
        d_steps=d_steps,
      ),
      log=dict(
        metrics_every=(1 if tiny else 100) * per_step,
        grid_every=(2 if tiny else 1_000) * per_step,
        checkpoint_every=(2 if tiny else 1_000) * per_step,
      ),
    )
  )
