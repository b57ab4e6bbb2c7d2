"""Writes recipe_numbers.md, the numbers of all configs beside those of the originals.

  python docs/recipe_numbers.py

The values of the originals are typed here from their sources, not from the configs. So
"equal" in the table is a comparison. tests/recipe_numbers_test.py holds the page and
the configs against this module.
"""

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
PAGE = ROOT / 'docs' / 'recipe_numbers.md'
OURS = 'ours'  # the source of a number that no original has


class Original(NamedTuple):
  """The value of a key in the original; in words where it is no value of ours."""

  value: Any
  source: str
  why: str = ''  # ours differs; '' if it is equal


Originals = Mapping[str, Original]


def ours(why: str, *keys: str) -> dict[str, Original]:
  """Keys that no original has."""
  return {key: Original(None, OURS, why) for key in keys}


def both(name: str, original: Original) -> dict[str, Original]:
  """A key that G and D have: 'g_lr', 'adam.beta1', ..."""
  section, _, key = name.rpartition('.')
  if section == 'adam':
    return {f'g_adam.{key}': original, f'd_adam.{key}': original}
  return {f'{section}.g_{key}': original, f'{section}.d_{key}': original}


def adam(beta2: float, source: str, **more: Original) -> dict[str, Original]:
  betas = both('adam.beta1', Original(0.0, source))
  betas |= both('adam.beta2', Original(beta2, source))
  for key, original in more.items():
    betas |= both(f'adam.{key}', original)
  return betas


def preset(
  source: str,
  first: int,
  last: int,
  base: int,
  batches: Mapping[int, int],
  rates: Mapping[int, float],
) -> dict[str, Original]:
  """`minibatch_base`, `minibatch_dict` and `G_lrate_dict` of the official code."""
  sizes = [2**i for i in range(first.bit_length() - 1, last.bit_length())]
  batch = tuple(batches.get(size, base) for size in sizes)
  rate = tuple(rates.get(size, 1e-3) for size in sizes)
  return {
    'schedule.batch': Original(batch, source),
    **both('schedule.lr', Original(rate, source)),
  }


# tkarras/progressive_growing_of_gans (TensorFlow) and its branch
# original-theano-version; NVlabs/stylegan.
LARGE = {4: 512, 8: 256, 16: 128, 32: 64, 64: 32}
BATCHES = {  # GPUs -> minibatch_base, minibatch_dict
  8: (32, LARGE),
  4: (16, LARGE | {128: 16}),
  2: (8, {4: 256, 8: 256, 16: 128, 32: 64, 64: 32, 128: 16, 256: 8}),
  1: (4, {4: 128, 8: 128, 16: 128, 32: 64, 64: 32, 128: 16, 256: 8, 512: 4}),
}
RATES = {  # of ProGAN
  8: {128: 1.5e-3, 256: 2e-3, 512: 3e-3, 1024: 3e-3},
  4: {256: 1.5e-3, 512: 2e-3, 1024: 3e-3},
  2: {512: 1.5e-3, 1024: 2e-3},
  1: {1024: 1.5e-3},
}
PROGAN = {
  'model.mbstd_group': Original(4, 'networks.py: mbstd_group_size'),
  'model.d_fused': Original(True, 'networks.py: fused_scale'),
  'model.dim_z': Original(512, 'networks.py: latent_size'),
  'model.fake_labels': Original('data', 'loss.py: get_random_labels_tf'),
  'model.gp_weight': Original(10.0, 'loss.py: wgan_lambda'),
  'model.gp_target': Original(1.0, 'loss.py: wgan_target'),
  'model.drift': Original(1e-3, 'loss.py: wgan_epsilon'),
  'model.class_weight': Original(1.0, 'loss.py: cond_weight'),
  'schedule.stabilise': Original(600_000, 'train.py: lod_training_kimg'),
  'schedule.fade': Original(600_000, 'train.py: lod_transition_kimg'),
  'schedule.warmup': Original(0, 'train.py: no ramp'),
  'schedule.ema': Original(0.999, 'train.py: G_smoothing'),
  'schedule.ema_half_life': Original(0, 'train.py: a decay per minibatch'),
  'schedule.minibatch_repeats': Original(4, 'train.py: minibatch_repeats'),
  **adam(
    0.99, 'config.py: G_opt, D_opt', tf_eps=Original(True, 'tfutil.py: Optimizer')
  ),
  'train.images': Original(12_000_000, 'config.py: preset-v2'),
  'train.d_steps': Original(1, 'train.py: D_repeats'),
  'train.simultaneous': Original(False, 'train.py: G follows D'),
}
THEANO = {
  'model.mbstd_group': Original(16, 'config.py: preset-v1-1gpu; there the whole batch'),
  'model.d_fused': Original(False, 'Theano network.py: Downscale2DLayer of D'),
  'schedule.minibatch_repeats': Original(1, 'Theano train.py: each minibatch'),
  'schedule.stabilise': Original(800_000, 'Theano config.py: lod_training_kimg'),
  'schedule.fade': Original(800_000, 'Theano config.py: lod_transition_kimg'),
  'schedule.warmup': Original(0, 'Theano config.py: rampup_kimg'),
  'schedule.ema': Original(0.999, 'paper, appendix A.1; Theano config.py: G_smoothing'),
  **adam(
    0.99,
    'paper, appendix A.1; Theano config.py: adam_beta1, adam_beta2',
    tf_eps=Original(True, 'Theano misc.py: adam'),
  ),
}
RAMP = {
  'schedule.warmup': Original(
    '40,000, rising exponentially', 'Theano config.py: rampup_kimg', 'ours is linear'
  )
}
POD = {
  'schedule.batch': Original('as 8 GPUs', 'see above', 'large batches for pods'),
  **both('schedule.lr', Original('as 8 GPUs', 'see above', 'the square-root rule')),
  'schedule.minibatch_repeats': Original(
    4, 'see above', 'an iteration has more images'
  ),
}
BF16 = {  # of the four highest resolutions
  'model.bfloat16_from': Original(
    'float32',
    'networks.py, networks_stylegan.py: dtype',
    'as num_fp16_res=4 of StyleGAN2-ADA',
  )
}
POD_PROGAN = POD | {
  'schedule.ema_half_life': Original(
    '0.999 per minibatch', 'train.py: G_smoothing', 'equal at batch 32'
  )
}
STYLEGAN = {
  'model.mbstd_group': Original(4, 'networks_stylegan.py: mbstd_group_size'),
  'model.dim_z': Original(512, 'networks_stylegan.py: latent_size'),
  'model.fake_labels': Original('data', 'loss.py: get_random_labels_tf'),
  'model.dim_w': Original(512, 'networks_stylegan.py: dlatent_size'),
  'model.mapping_layers': Original(8, 'paper, section 2; networks_stylegan.py'),
  'model.mapping_lrmul': Original(0.01, 'paper, appendix C; networks_stylegan.py'),
  'model.mixing': Original(0.9, 'paper, table 2; networks_stylegan.py'),
  'model.w_avg_beta': Original(0.995, 'networks_stylegan.py: dlatent_avg_beta'),
  'model.truncation_psi': Original(0.7, 'networks_stylegan.py: truncation_psi'),
  'model.truncated_layers': Original(8, 'networks_stylegan.py: truncation_cutoff'),
  'model.loss': Original('logistic', 'paper, appendix C; train.py'),
  'model.r1_gamma': Original(10.0, 'paper, appendix C; train.py: r1_gamma'),
  'schedule.stabilise': Original(600_000, 'training_loop.py: lod_training_kimg'),
  'schedule.fade': Original(600_000, 'training_loop.py: lod_transition_kimg'),
  'schedule.warmup': Original(0, 'training_loop.py: lrate_rampup_kimg'),
  'schedule.ema_half_life': Original(10_000, 'training_loop.py: G_smoothing_kimg'),
  'schedule.minibatch_repeats': Original(4, 'training_loop.py: minibatch_repeats'),
  **adam(0.99, 'train.py: G_opt, D_opt', tf_eps=Original(True, 'tflib/optimizer.py')),
  'train.images': Original(25_000_000, 'paper, appendix C; train.py: total_kimg'),
  'train.d_steps': Original(1, 'training_loop.py: D_repeats'),
}


def sizes(first: int, last: int) -> dict[str, Original]:
  """The resolutions of a growing GAN."""
  table = tuple(2**i for i in range(first.bit_length() - 1, last.bit_length()))
  source = 'lod_initial_resolution; the resolution of the data'
  return {
    'model.res': Original(last, 'the resolution of the data'),
    'schedule.resolutions': Original(table, source),
  }


def progan_presets(last: int) -> dict[str, dict[str, Original]]:
  """Variant -> the preset for 8, 4, 2 or 1 GPUs."""
  return {
    f'{n}gpu' if n < 8 else '': preset(
      f'config.py: preset-v2, {n} GPUs',
      4,
      last,
      *BATCHES[n],
      RATES[n],
    )
    for n in BATCHES
  }


def theano(last: int, overrides: Mapping[int, int], images: int) -> dict[str, Original]:
  source = 'Theano config.py: minibatch_default, minibatch_overrides, learning_rate_max'
  return {
    **THEANO,
    **preset(source, 4, last, 16, overrides, {}),
    'train.images': Original(images, 'Theano config.py: total_kimg'),
  }


def progan_table1(paper: Originals) -> dict[str, dict[str, Original]]:
  """Rows (a) to (f) of the paper's table 1; `paper` is row (g)."""

  def model(source: str, **keys: Any) -> dict[str, Original]:
    return {f'model.{key}': Original(value, source) for key, value in keys.items()}

  conf = 'Theano config.py'

  def sizes_and_rate(batch: int, rate: float) -> dict[str, Original]:
    learning_rate = Original((rate,), f'{conf}: learning_rate_max')
    return {
      'schedule.batch': Original((batch,), f'{conf}: minibatch_default'),
      **both('schedule.lr', learning_rate),
    }

  f = {**paper, **sizes_and_rate(16, 1e-3)} | model(f'{conf}: config_idx', g_norm=False)
  e = f | sizes_and_rate(16, 1e-4) | model(f'{conf}: config_idx', equalized=False)
  d = e | model(f'{conf}: mbstat_avg', mbstd_group=1)
  star = d | model(f'{conf}: mbdisc_kernels', mbdisc_kernels=100)
  c = {
    **d,
    **model(f'{conf}: latent_size, normalize_latents', dim_z=128, normalize_z=False),
    **model(f'{conf}: use_batchnorm', g_batch_norm=True, g_relu=True, g_tanh=True),
    **model(f'{conf}: use_layernorm, iwass_epsilon', d_layer_norm=True, drift=0.0),
    **both('adam.beta2', Original(0.9, f'{conf}: adam_beta2')),
    'schedule.ema': Original(0.999**5, f'{conf}: G_smoothing'),
    'train.d_steps': Original(5, f'{conf}: D_training_repeats'),
  }
  ema = {'schedule.ema': Original(0.999**20, f'{conf}: G_smoothing')}
  b = c | sizes_and_rate(64, 1e-4) | ema
  whole = Original((128,), f'{conf}: lod_initial_resolution')
  rows = {'a': b | {'schedule.resolutions': whole}, 'b': b, 'c': c, 'd': d}
  rows |= {'e_star': star, 'e': e, 'f': f}
  return {f'table1_{row}': originals for row, originals in rows.items()}


def stylegan_tables(full: Originals) -> dict[str, dict[str, Original]]:
  """Rows of the paper's tables 1, 2 and 4; `full` is row F of table 1."""

  def row(table: int, before: Originals, **keys: Any) -> dict[str, Original]:
    source = f'train.py: Table {table}'
    changes = {f'model.{key}': Original(value, source) for key, value in keys.items()}
    return {**before, **changes}

  e = row(1, full, mixing=0.0)
  d = row(1, e, noise=False)
  c = row(1, d, const=False)
  traditional = row(
    4, c, styles=False, g_norm=True, instance_norm=False, truncation_psi=1.0
  )
  return {
    'table1_b': row(1, traditional, mapping_layers=0),
    'table1_c': c,
    'table1_d': d,
    'table1_e': e,
    'table2_50': row(2, full, mixing=0.5),
    'table2_100': row(2, full, mixing=1.0),
    'table4_traditional8': row(4, traditional, mapping_layers=8),
    **{f'table4_style{n}': row(4, full, mapping_layers=n) for n in (0, 1, 2)},
  }


def stylegan_variants(last: int, rates: Mapping[int, float]) -> dict[str, Any]:
  """Variant -> originals of the presets for 8, 4, 2 and 1 GPUs, of `pod` and `bf16`."""
  found: dict[str, Any] = {}
  for n in BATCHES:
    groups = Original(n, 'loss.py, networks_stylegan.py: a cutoff per GPU')
    table = preset(f'train.py: {n}gpu', 8, last, *BATCHES[n], rates)
    found[f'{n}gpu' if n < 8 else ''] = table | {'model.mixing_groups': groups}
  groups = Original(8, 'a cutoff per GPU', 'a cutoff for 4 images, as 8 GPUs at 1024')
  others = {'pod': POD | {'model.mixing_groups': groups}, 'bf16': found[''] | BF16}
  return found | others


# ajbrock/BigGAN-PyTorch: scripts/launch_*.sh, and utils.py for what they leave out.
DEFAULT = 'utils.py'
PYTORCH = {
  'model.dim_z': Original(128, f'{DEFAULT}: dim_z'),
  'model.hier': Original(False, f'{DEFAULT}: hier'),
  'model.g_ch': Original(64, f'{DEFAULT}: G_ch'),
  'model.d_ch': Original(64, f'{DEFAULT}: D_ch'),
  'model.bn_eps': Original(1e-5, f'{DEFAULT}: BN_eps'),
  'model.rgb_bn_eps': Original(1e-5, 'BigGAN.py: the last norm keeps 1e-5'),
  'model.bn_momentum': Original(0.1, 'layers.py: momentum'),
  'model.sn_eps': Original(1e-8, f'{DEFAULT}: SN_eps'),
  'schedule.ema': Original(0.9999, f'{DEFAULT}: ema_decay'),
  'schedule.ema_start': Original(0, f'{DEFAULT}: ema_start'),
  **adam(
    0.999,
    f'{DEFAULT}: G_B1, G_B2, D_B1, D_B2',
    eps=Original(1e-8, f'{DEFAULT}: adam_eps'),
    ortho=Original(0.0, f'{DEFAULT}: G_ortho, D_ortho'),
  ),
  'data.flip': Original(False, 'utils.py: no --augment; datasets.py'),
  'train.accum': Original(1, f'{DEFAULT}: num_D_accumulations'),
}
CIFAR = 'launch_cifar_ema.sh'
SNGAN = 'launch_SNGAN.sh'
SAGAN = 'launch_SAGAN_bs128x2_ema.sh'
NETWORKS = {
  'model.fake_labels': Original('uniform', 'utils.py: prepare_z_y'),
  'model.res': Original(128, 'the resolution of the data'),
  'model.n_classes': Original(1000, 'the classes of the data'),
  'model.g_widths': Original((), 'BigGAN.py: G_arch'),
  'model.d_widths': Original((), 'BigGAN.py: D_arch'),
}
CIFAR_NETWORKS = NETWORKS | {
  'model.res': Original(32, 'the resolution of the data'),
  'model.n_classes': Original(10, 'the classes of the data'),
}
UNSHARED = {'model.shared_dim': Original(0, 'utils.py: no --G_shared')}
EPOCHS_CIFAR = Original(500 * 50_000, f'{CIFAR}: num_epochs 500')
EPOCHS_IMAGENET = Original(100 * 1_281_167, f'{DEFAULT}: num_epochs')
SNGAN_TABLE = {
  **PYTORCH,
  **NETWORKS,
  **UNSHARED,
  'model.d_wide': Original(False, f'{SNGAN}: a D that is not wide'),
  'model.g_init': Original('xavier', SNGAN),
  'model.d_init': Original('xavier', SNGAN),
  'schedule.batch': Original(64, SNGAN),
  **both('schedule.lr', Original(2e-4, SNGAN)),
  'schedule.ema': Original(0.0, f'{SNGAN}: no --ema'),
  **both('adam.beta2', Original(0.9, SNGAN)),
  'train.d_steps': Original(5, SNGAN),
  'train.images': EPOCHS_IMAGENET,
}
BIGGAN_DEEP_RATES = both(
  'schedule.lr', Original(2.5e-5, 'paper, appendix C: BigGAN-deep at 256 and 512')
)


def biggan_imagenet(res: int, dim_z: int, ch: int, depth: int) -> dict[str, Original]:
  return {
    **NETWORKS,
    'model.res': Original(res, 'the resolution of the data'),
    'model.dim_z': Original(dim_z, 'paper, appendix B'),
    'model.shared_dim': Original(128, 'paper, appendix B'),
    'model.g_ch': Original(ch, 'paper, appendix B'),
    'model.d_ch': Original(ch, 'paper, appendix B'),
    'model.g_attention': Original((64,), 'paper, appendix B'),
    'model.d_attention': Original((64,), 'paper, appendix B'),
    'model.depth': Original(depth, 'paper, appendix B'),
    'model.bn_eps': Original(1e-4, 'paper, appendix C'),
    'model.rgb_bn_eps': Original(1e-4, 'paper, appendix C'),
    'model.sn_eps': Original(1e-4, 'paper, appendix C'),
    **ours('saves memory; changes no number', 'model.remat'),
    'schedule.batch': Original(2048, 'paper, table 1'),
    'schedule.g_lr': Original(5e-5, 'paper, appendix C'),
    'schedule.d_lr': Original(2e-4, 'paper, appendix C'),
    'schedule.ema': Original(0.9999, 'paper, appendix C'),
    'schedule.ema_start': Original(
      20_000 * 4_096, 'launch_BigGAN_bs256x8.sh: 20,000 iterations'
    ),
    **adam(
      0.999,
      'paper, appendix C',
      eps=Original(1e-6, 'launch_BigGAN_bs256x8.sh: adam_eps'),
    ),
    'g_adam.ortho': Original(1e-4, 'paper, section 3.1'),
    'd_adam.ortho': Original(0.0, 'paper, section 3.1'),
    'data.flip': Original(False, 'datasets.py: HDF5; compare_gan'),
    'train.d_steps': Original(2, 'paper, appendix C'),
    **ours(
      "150,000 iterations; the paper's models collapse about then", 'train.images'
    ),
  }


def own(name: str) -> dict[str, dict[str, Original]]:
  """A config without an original: every number is ours."""
  keys = [key for key in set_numbers(name, '') if key not in LOG]
  return {'': ours('chosen on two CPU cores', *keys)}


LOG = {'data.threads', *(f'log.{k}' for k in ('metrics_every', 'grid_every'))}
LOG |= {f'log.{k}' for k in ('checkpoint_every', 'grid_rows', 'grid_columns')}


def recipes() -> dict[str, dict[str, dict[str, Original]]]:
  """Config -> variant -> key -> the original. `tiny` is left out: it is ours."""
  table: dict[str, dict[str, dict[str, Original]]] = {}

  def progan(name: str, last: int, common: Originals, paper: Originals) -> None:
    base = {**PROGAN, **sizes(4, last), **common}
    presets = progan_presets(last)
    table[name] = {variant: base | preset for variant, preset in presets.items()}
    table[name]['pod'] = table[name][''] | POD_PROGAN
    table[name]['paper'] = base | dict(paper)

  def flip(
    value: bool, source: str = 'config.py: mirror_augment'
  ) -> dict[str, Original]:
    return {'data.flip': Original(value, source)}

  theano_flip = 'Theano config.py: mirror_augment'
  hq = theano(1024, {256: 14, 512: 6, 1024: 3}, 19_000_000)
  progan('progan_celebahq', 1024, flip(True), hq | RAMP)
  table['progan_celebahq']['bf16'] = table['progan_celebahq'][''] | BF16
  celeba = theano(128, {}, 10_000_000)
  narrow = Original(
    (512, 512, 512, 256, 128, 64, 32), 'Theano config.py: fmap_base 2048'
  )
  progan('progan_celeba', 128, flip(True), celeba | both('model.widths', narrow))
  table['progan_celeba'] |= progan_table1(table['progan_celeba']['paper'])
  lsun = theano(256, {}, 20_000_000) | RAMP
  progan('progan_lsun', 256, flip(True), lsun | flip(False, theano_flip))
  cifar = theano(32, {}, 20_000_000) | {
    'model.dim_z': Original(128, 'Theano config.py: latent_size'),
    'model.gp_target': Original(750.0, 'Theano config.py: iwass_target'),
    'schedule.stabilise': Original(400_000, 'Theano config.py: lod_training_kimg'),
    'schedule.fade': Original(400_000, 'Theano config.py: lod_transition_kimg'),
    'train.simultaneous': Original(True, 'Theano config.py: separate_funcs'),
  }
  most = Original((128,) * 5, 'Theano config.py: fmap_base 4096, fmap_max 128')
  labels = {'model.n_classes': Original(0, 'config.py: no labels without -cond')}
  progan('progan_cifar10', 32, flip(False) | labels, cifar | both('model.widths', most))
  cond = {'model.n_classes': Original(10, 'config.py: -cond')}
  table['progan_cifar10']['cond'] = table['progan_cifar10'][''] | cond

  fast = {128: 1.5e-3, 256: 2e-3, 512: 3e-3, 1024: 3e-3}
  for name, last, rates, more in (
    ('stylegan_ffhq', 1024, fast, flip(True, 'paper, appendix C; train.py')),
    (
      'stylegan_celebahq',
      1024,
      {size: min(rate, 2e-3) for size, rate in fast.items()},
      {
        **flip(True, 'paper, appendix C; train.py'),
        'model.loss': Original('wgan', 'paper, appendix C; train.py: wgangp'),
        'model.gp_weight': Original(10.0, 'loss.py: wgan_lambda'),
        'model.drift': Original(1e-3, 'loss.py: wgan_epsilon'),
      },
    ),
    (
      'stylegan_lsun',
      256,
      fast,
      {
        **flip(False, 'paper, appendix C; train.py'),
        'train.images': Original(
          70_000_000,
          'paper, appendix C',
          "25M is the default of the repository's train.py",
        ),
      },
    ),
  ):
    base = {**STYLEGAN, **sizes(8, last), **more}
    variants = stylegan_variants(last, rates)
    table[name] = {v: base | changes for v, changes in variants.items()}
  table['stylegan_ffhq'] |= stylegan_tables(table['stylegan_ffhq'][''])

  table['biggan_cifar10'] = {
    '': {
      **PYTORCH,
      **CIFAR_NETWORKS,
      **UNSHARED,
      'model.g_init': Original('N02', CIFAR),
      'model.d_init': Original('N02', CIFAR),
      'model.g_attention': Original((), CIFAR),
      'model.d_attention': Original((), CIFAR),
      'schedule.batch': Original(50, CIFAR),
      **both('schedule.lr', Original(2e-4, CIFAR)),
      'schedule.ema_start': Original(1_000 * 200, f'{CIFAR}: 1,000 iterations'),
      'train.d_steps': Original(4, CIFAR),
      'train.images': EPOCHS_CIFAR,
    }
  }
  table['sngan_imagenet'] = {'': SNGAN_TABLE}
  table['sngan_cifar10'] = {
    '': {
      **SNGAN_TABLE,
      **CIFAR_NETWORKS,
      'train.images': Original(
        100 * 50_000, f'{DEFAULT}: num_epochs', 'as long as biggan_cifar10'
      ),
    }
  }
  table['sagan_imagenet'] = {
    '': {
      **PYTORCH,
      **NETWORKS,
      'model.shared_dim': Original(
        128, f'{SAGAN}; {DEFAULT}: shared_dim, as long as z'
      ),
      'model.g_attention': Original((64,), SAGAN),
      'model.d_attention': Original((64,), SAGAN),
      'model.g_init': Original('xavier', SAGAN),
      'model.d_init': Original('xavier', SAGAN),
      'schedule.batch': Original(256, f'{SAGAN}: 128 times 2'),
      'schedule.g_lr': Original(1e-4, SAGAN),
      'schedule.d_lr': Original(4e-4, SAGAN),
      'schedule.ema_start': Original(2_000 * 256, f'{SAGAN}: 2,000 iterations'),
      'train.d_steps': Original(1, SAGAN),
      'train.accum': Original(2, SAGAN),
      'train.images': EPOCHS_IMAGENET,
    }
  }
  table['biggan_imagenet'] = {
    '': biggan_imagenet(128, 120, 96, 0),
    '128': biggan_imagenet(128, 120, 96, 0),
    '256': biggan_imagenet(256, 140, 96, 0),
    '512': biggan_imagenet(512, 160, 96, 0),
    'deep128': biggan_imagenet(128, 128, 128, 2),
    'deep256': biggan_imagenet(256, 128, 128, 2) | BIGGAN_DEEP_RATES,
    'deep512': biggan_imagenet(512, 128, 128, 2) | BIGGAN_DEEP_RATES,
  }
  for family in ('biggan', 'progan', 'stylegan'):
    for images in ('emoji', 'fashion'):
      table[f'{family}_{images}'] = own(f'{family}_{images}')
  table['biggan_digits'] = own('biggan_digits')
  return dict(sorted(table.items()))


def set_numbers(name: str, variant: str) -> dict[str, Any]:
  """Key -> value of everything that the config sets, names and types aside."""
  module = importlib.import_module(f'configs.{name}')
  sections = module.get_config(variant).to_dict()
  names = ('model.family', 'model.dtype', 'data.name')
  keys = {f'{s}.{k}': v for s, keys in sections.items() for k, v in keys.items()}
  return {key: value for key, value in keys.items() if key not in names}


def all_values(name: str, variant: str) -> dict[str, Any]:
  """Key -> value, defaults included."""
  from gan_jax.config import parse_config

  module = importlib.import_module(f'configs.{name}')
  sections = parse_config(module.get_config(variant).to_dict()).to_dict()
  return {f'{s}.{k}': v for s, keys in sections.items() for k, v in keys.items()}


def text(value: Any) -> str:
  """A value as a cell of the table."""
  if isinstance(value, tuple):
    return ', '.join(map(text, value)) or '()'
  if type(value) is float:
    return f'{value:.4g}'
  return f'{value:,}' if type(value) is int else str(value)


def verdict(value: Any, original: Original) -> str:
  if original.source == OURS:
    return f'no original: {original.why}'
  return f'differs: {original.why}' if original.why else 'equal'


def section(name: str, variants: Mapping[str, Originals]) -> list[str]:
  """The part of the page about one config."""
  lines = [f'## {name}', '', '| key | variants | value | original | source | |']
  lines.append('|---|---|---|---|---|---|')
  rows: dict[tuple[str, ...], list[str]] = {}
  values = {variant: all_values(name, variant) for variant in variants}
  for variant, originals in variants.items():
    for key in sorted(originals):
      value, original = values[variant][key], originals[key]
      shown = '' if original.source == OURS else text(original.value)
      cells = (text(value), shown, original.source, verdict(value, original))
      rows.setdefault((key, *cells), []).append(variant)
  for (key, *cells), used in sorted(rows.items(), key=lambda row: row[0][0]):
    names = ', '.join(f'`:{v}`' if v else 'none' for v in used)
    where = 'all' if len(used) == len(variants) else names
    lines.append(f'| `{key}` | {where} | {" | ".join(cells)} |')
  full, tiny = set_numbers(name, ''), set_numbers(name, 'tiny')
  changed = [f'`{k}` {text(v)}' for k, v in tiny.items() if full.get(k) != v]
  lines += ['', f'`:tiny`, two steps on a laptop, is ours: {"; ".join(changed)}.', '']
  return lines


def page() -> str:
  lines = [
    '# The numbers of all recipes',
    '',
    'Written by `python docs/recipe_numbers.py`; a test holds it against the configs.',
    'Sources are files of the original repositories, or sections of the papers:',
    '`tkarras/progressive_growing_of_gans` and arXiv:1710.10196 of ProGAN ("Theano" is',
    'its branch `original-theano-version`), `NVlabs/stylegan` and arXiv:1812.04948 of',
    'StyleGAN, `ajbrock/BigGAN-PyTorch`, `google/compare_gan` and arXiv:1809.11096 of',
    'BigGAN, SNGAN and SAGAN. Keys that a config does not set are listed where an',
    'original has a number for them. Lengths are in images. Widths that are empty are',
    'those that the family publishes. The section `log` and `data.threads` are ours',
    'everywhere.',
    '',
  ]
  for name, variants in recipes().items():
    lines += section(name, variants)
  return '\n'.join(lines)


if __name__ == '__main__':
  sys.path.insert(0, str(ROOT))
  PAGE.write_text(page())
