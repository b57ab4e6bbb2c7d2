"""Metrics against the outputs of published tools, read from the files of --reference.

The tests know kinds of files and keys, but no file names, sizes, seeds or options. A
key that no test reads is a failure. Tolerances are those of the README beside the
fixtures.
"""

import fnmatch
import json
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.evaluation.metrics import (
  inception,
  inception_score,
  kid,
  lpips,
  ms_ssim,
  neighbors,
  resize,
  sliced_wasserstein,
)
from gan_jax.evaluation.metrics.feature_statistics import FeatureStatistics
from gan_jax.evaluation.metrics.frechet import frechet_distance

FEATURES, PIXELS, PYRAMID, SWD, SSIM = 2e-5, 1e-3, 1e-4, 1e-3, 1e-6
LPIPS = 1e-5
RESIZING = {  # a tool as the fixtures call it -> ours
  'pytorch_fid': 'torch',
  'torch_bilinear_alignFalse': 'torch',
  'studiogan_legacy': 'torch',
  'studiogan_clean': 'clean',
  'studiogan_friendly': 'friendly',
  'torch_fidelity': 'tf1',
  'tf1': 'tf1',
  'torch_bilinear_alignTrue': 'biggan',
}


def nhwc(x):
  return np.moveaxis(x, 1, -1)


def error(ours, theirs):
  return float(np.max(np.abs(np.asarray(ours, np.float64) - theirs), initial=0))


class Record(dict):
  """A fixture that records which of its keys were read, and the checks made."""

  def __init__(self, path):
    with np.load(path) as z:
      super().__init__({k: z[k] for k in z.files})
    self.meta = json.loads(str(self.pop('meta_json')))
    self.read, self.checks = set(), {}

  def __getitem__(self, key):
    self.read.add(key)
    return super().__getitem__(key)

  def under(self, prefix):
    return sorted(k for k in self if k.startswith(prefix))

  def check(self, key, ours, tol, relative=False):
    """Compares our value with the one stored under `key`."""
    off = error(ours, self[key])
    self.checks[key] = (off / abs(float(self[key])) if relative else off, tol)

  def skip(self, *patterns):
    """Marks keys as read that are not compared."""
    self.read |= {k for k in self for p in patterns if fnmatch.fnmatch(k, p)}


# inception.npz


def recipe_weights(shapes, salt):
  """Pseudo-random weights, made as the README beside the fixtures describes."""
  weights = {}
  for name, shape in shapes.items():
    rs = np.random.RandomState(zlib.crc32((salt + name).encode('ascii')) & 0xFFFFFFFF)
    n = rs.standard_normal(size=shape)
    if name.endswith('conv.weight') or name == 'fc.weight':
      n *= np.sqrt(2 / np.prod(shape[1:]))
    elif name.endswith('.weight'):
      n = 1 + 0.1 * n
    elif name.endswith('.running_var'):
      n = 0.5 + np.abs(n)
    else:
      n *= 0.1
    weights[name] = n.astype(np.float32)
  return weights


class Extractor:
  """A network with weights, compiled for batches of four."""

  def __init__(self, network, weights):
    self.variables = inception.convert_weights(network, weights, 'the fixture')
    self.apply = jax.jit(network.apply)

  def __call__(self, images, resizing):
    how, n = resize.PREPROCESSING[resizing], len(images)
    x = resize.preprocess(images, how, inception.SIDE)
    out = {}
    for start in range(0, n, 4):
      rows = np.minimum(np.arange(start, start + 4), n - 1)
      for name, value in self.apply(self.variables, np.asarray(x)[rows]).items():
        out.setdefault(name, []).append(np.asarray(value)[: n - start])
    return {name: np.concatenate(parts) for name, parts in out.items()}


def check_inception(z):
  shapes = json.loads(str(z['weights_names_shapes_json']))
  weights = recipe_weights(shapes, z.meta['salt'])
  sums = json.loads(str(z['weights_checksums_sum_sumsq_json']))
  for name, (total, squares) in sums.items():
    value = weights[name].astype(np.float64)
    np.testing.assert_allclose([value.sum(), np.square(value).sum()], [total, squares])
  for key in z.under('weights_sample/'):
    z.check(key, weights[key.partition('/')[2]], 0.0)
  network = Extractor(inception.fid_network(), weights)
  for key in z.under('img/'):
    tag = key.partition('/')[2]
    for tool, resizing in RESIZING.items():
      keys = z.under(f'{tool}/{tag}/')
      out = network(z[key], resizing) if keys else {}
      for name in keys:
        z.check(name, out[name.rpartition('/')[2].rpartition('_')[0]], FEATURES)
    for name in z.under(f'resized/{tag}/'):
      tool = name.partition('0to255_')[2].rpartition('_img0')[0]
      how = resize.PREPROCESSING[RESIZING[tool]]
      resized = resize.resize_images(z[key][:1], how, inception.SIDE)
      z.check(name, resized[0, :, :, 1], PIXELS)
  prefix = 'biggan_pytorch_inception/'
  if z.under(prefix):
    classes = z[f'{prefix}logits_f32'].shape[1]
    shapes |= {'fc.weight': [classes, 2048], 'fc.bias': [classes]}
    weights = recipe_weights(shapes, z.meta['salt_torchvision'])
    out = Extractor(inception.torchvision_network(), weights)(
      z[f'{prefix}img'], 'biggan'
    )
    for key in z.under(f'{prefix}pool_'):
      z.check(key, out['2048'], FEATURES)
    for key in z.under(f'{prefix}logits_'):
      z.check(key, out['logits'], FEATURES)


# metrics_features.npz


def stats_of(rows):
  stats = FeatureStatistics(rows.shape[1])
  for part in np.array_split(rows, 3):
    stats.update(part)
  return stats


def check_fid(z):
  real, fake = z['feat/real'], z['feat/fake']
  for side, rows in (('real', real), ('fake', fake)):
    stats = stats_of(rows)
    z.check(f'stat/mu_{side}', stats.mean, 1e-12)
    z.check(f'stat/sigma_{side}', stats.covariance, 1e-12)
  half = real.shape[1] // 2
  pairs = {
    'full': (real, fake),
    'rankdef': (real[: half + 5], fake[: half + 9]),
    'self': (real, real),
  }
  z.skip('out/fid/*newton_schulz*')
  for key in z.under('out/fid/'):
    kind, name = key.split('/')[2:]
    if 'newton_schulz' in name:
      continue
    ours = frechet_distance(*map(stats_of, pairs[kind]))
    if kind == 'self':
      z.check(key, ours, 1e-5)
    else:
      z.check(key, ours, 1e-5 if 'f32' in name else 1e-6, relative=True)


def check_kid(z):
  real, fake = z['feat/real'], z['feat/fake']
  count, size = z.meta['kid']['subsets'], z.meta['kid']['subset_size']
  seed = z.meta['kid']['rng_seed']
  subsets = list(kid.subset_indices(len(fake), len(real), count, size, seed))
  z.check('kid/idx_fake', [i for i, _ in subsets], 0.0)
  z.check('kid/idx_real', [j for _, j in subsets], 0.0)
  values = [kid.squared_mmd(fake[i], real[j]) for i, j in subsets]
  mean, std = kid.kernel_distance(real, fake, count, size)
  least = min(len(real), len(fake))
  first = kid.squared_mmd(fake[:least], real[:least])

  def gaussian(x, y):
    square = np.square(x[:, None].astype(np.float64) - y[None]).sum(-1)
    return np.exp(-square / (2 * 10.0**2))

  ours = {
    'kid/per_subset': values,
    'out/kid/torch_fidelity_mean': mean,
    'out/kid/torch_fidelity_std': std,
    'out/kid/first_min_n_unbiased': first,
    'out/kid/rbf_sigma10_mean': np.mean(
      [kid.squared_mmd(fake[i], real[j], gaussian) for i, j in subsets]
    ),
  }
  z.skip('out/kid/first_min_n_biased_*', 'out/kid/first_min_n_u-statistic_*')
  for name, value in ours.items():
    for bits, tol in (('f32', 1e-5), ('f64', 1e-9)):
      if f'{name}_{bits}' in z:
        z.check(f'{name}_{bits}', value, tol)


def check_inception_score(z):
  logits = z['is/logits']
  n = len(logits)
  shuffled = np.random.RandomState(2020).permutation(n)
  z.check('is/permutation_seed2020', shuffled, 0.0)
  for splits in z.meta['is_splits']:
    even = inception_score.split_boundaries(n, splits)
    cut = [i * (n // splits) for i in range(splits + 1)]  # the remainder is dropped
    tools = {
      f'torch_fidelity_splits{splits}_shuffle1': (logits[shuffled], even, 0),
      f'torch_fidelity_splits{splits}_shuffle0': (logits, even, 0),
      f'biggan_pytorch_splits{splits}': (logits, cut, 0),
      f'studiogan_splits{splits}': (logits, even, 1),
    }
    for tool, (rows, borders, ddof) in tools.items():
      score = inception_score.InceptionScore(borders, rows.shape[1])
      for part in np.array_split(rows, 7):
        score.update(part)
      mean, std = score.result(ddof)
      z.check(f'out/is/{tool}_mean', mean, 1e-9, relative=True)
      key = f'out/is/{tool}_std'
      if np.isnan(z[key]):
        assert np.isnan(std)
      else:
        z.check(key, std, 1e-9)


def check_neighbourhoods(z):
  z.skip('out/prdc/int/torch_fidelity_*')  # rounding decides their ties
  points = {
    'cont': (z['feat/real'], z['prdc/fake']),
    'int': (z['prdc/int_real'], z['prdc/int_fake']),
  }
  for kind, (real, fake) in points.items():
    for k in z.meta['prdc_k']:
      if kind == 'cont':
        for side, rows in (('real', real), ('fake', fake)):
          radii = np.sqrt(neighbors.neighbor_radii(rows, k))
          z.check(f'prdc/cont/radii_{side}_k{k}', radii, 1e-6)
      for closed, names in (
        (False, ('studiogan', 'exact_lt')),
        (True, ('torch_fidelity', 'exact_le')),
      ):
        ours = neighbors.neighbor_scores(real, fake, k, closed=closed)
        for name in names:
          if kind == 'int' and name == 'torch_fidelity':
            continue
          for key in z.under(f'out/prdc/{kind}/{name}_k{k}_'):
            z.check(key, getattr(ours, key.rpartition('_')[2]), 1e-6)


def check_features(z):
  check_fid(z)
  check_kid(z)
  check_inception_score(z)
  check_neighbourhoods(z)


# swd_msssim.npz


def recorded_patches(z, side, name, levels):
  """The patches of one side, around the recorded centers."""
  held, size = sliced_wasserstein.PatchStatistics(max_images=0), z.meta['minibatch']
  images = nhwc(z[f'swd/{name}'])
  for b, start in enumerate(range(0, len(images), size)):
    batch = images[start : start + size]
    held.add_patches(
      [
        sliced_wasserstein.extract_patches(
          level,
          z['swd/x_offsets'][side, b, i].astype(int),
          z['swd/y_offsets'][side, b, i].astype(int),
        )
        for i, level in enumerate(sliced_wasserstein.laplacian_pyramid(batch, levels))
      ],
      len(batch),
    )
  return held


def check_swd(z):
  assert z.meta['nhood_size'] == sliced_wasserstein.PATCH_SIZE
  assert z.meta['nhoods_per_image'] == sliced_wasserstein.PATCHES_PER_IMAGE
  real = nhwc(z['swd/real'])
  sizes = sliced_wasserstein.level_sizes(real.shape[1:3])
  assert [side for side, _ in sizes] == z['swd/resolutions'].tolist()
  for key in z.under('swd/pyramid_real'):
    stored = nhwc(z[key])
    level = int(key.rpartition('level')[2])
    ours = sliced_wasserstein.laplacian_pyramid(real[: len(stored)], len(sizes))[level]
    z.check(key, np.moveaxis(ours, -1, 1), PYRAMID)
  for key in z.under('swd/pyr_up_level'):
    x = real[: len(z[key])].astype(np.float32)
    for _ in range(int(key.rpartition('level')[2])):
      x = sliced_wasserstein.pyramid_down(x)
    z.check(key, np.moveaxis(sliced_wasserstein.pyramid_up(x), -1, 1), PYRAMID)
  for key in z.under('swd/downscale_lod'):
    x = real[: len(z[key])].astype(np.float32)
    for _ in range(int(key.rpartition('lod')[2])):
      x = ms_ssim.box_downsample(x)
    z.check(key, np.moveaxis(np.rint(x), -1, 1), 0.0)
  sides = [
    recorded_patches(z, i, name, len(sizes)) for i, name in enumerate(('real', 'fake'))
  ]
  ours = sliced_wasserstein.sliced_wasserstein_distances(*sides, z['swd/dirs_fakes'])
  z.check('swd/out_fakes_replay_f32dirs', ours, SWD)
  # A set against itself, and directions of which only float32 was kept.
  z.check(
    'swd/out_reals_selfcompare',
    sliced_wasserstein.sliced_wasserstein_distances(sides[0], sides[0]),
    SWD,
  )
  z.skip('swd/out_fakes')
  if 'sw_only/A' in z:
    ours = sliced_wasserstein.sliced_distance(
      z['sw_only/A'], z['sw_only/B'], z['sw_only/dirs']
    )
    z.check('sw_only/out', ours, 1e-6)


def check_similarity(z):
  for key in z.under('msssim/img_'):
    res = key.rpartition('_')[2]
    images = nhwc(z[key])
    a, b = images[::2], images[1::2]
    z.check(f'msssim/per_pair_{res}', ms_ssim.ms_ssim(a, b), SSIM)
    for name, ours in zip(('ssim', 'cs'), ms_ssim.ssim(a, b), strict=True):
      z.check(f'msssim/{name}_scale0_{res}', ours, SSIM)
    held = ms_ssim.PairSimilarity(max_images=len(images))
    for part in np.array_split(images, 4):
      held.update(part)
    z.check(f'msssim/api_{res}', held.result(), SSIM)


def check_images(z):
  check_swd(z)
  check_similarity(z)


# lpips.npz


def check_lpips(z):
  installed = lpips.installed_weights()
  if installed is None:
    pytest.skip('the extra lpips is not installed')
  a, b = (z[f'img{i}_u8'].astype(np.float32) / 127.5 - 1 for i in (0, 1))
  compiled = jax.jit(lpips.distance)
  for key in z.under('lpips_'):
    network, _, same = key.removeprefix('lpips_').partition('_')
    weights, _ = lpips.load(str(installed.with_name(f'{network}.ckpt')))
    z.check(key, compiled(weights, a, a if same else b), LPIPS)
    if not same:
      plain = weights._replace(weights=tuple(jnp.ones_like(w) for w in weights.weights))
      z.check(f'nolin_{network}', compiled(plain, a, b), LPIPS)


CHECKS = {
  'img/': check_inception,
  'feat/': check_features,
  'swd/': check_images,
  'lpips_': check_lpips,
}


def kind_of(path):
  """The check of a file with metrics; None for other files."""
  with np.load(path) as z:
    if 'meta_json' not in z.files:
      return None
    return next(
      (f for p, f in CHECKS.items() if any(n.startswith(p) for n in z.files)), None
    )


def pytest_generate_tests(metafunc):
  root = Path(metafunc.config.getoption('--reference'))
  paths = [p for p in sorted(root.rglob('*.npz')) if kind_of(p)]
  ids = [str(p.relative_to(root).with_suffix('')) for p in paths]
  if 'fixture_path' in metafunc.fixturenames:
    metafunc.parametrize('fixture_path', paths, ids=ids)


def test_fixture(fixture_path, record_parity):
  z = Record(fixture_path)
  kind_of(fixture_path)(z)
  unread = set(z) - z.read
  assert not unread, f'{fixture_path.stem}: nothing here reads {sorted(unread)}'
  ratio = lambda c: c[1][0] / c[1][1] if c[1][1] else np.inf * (c[1][0] > 0)
  exact = {n: c for n, c in z.checks.items() if not c[1] and not c[0]}
  name, (worst, tol) = max(
    (c for c in z.checks.items() if c[0] not in exact), key=ratio
  )
  record_parity(
    f'{fixture_path.stem}: worst {worst:.1e} of {tol:.1e} '
    f'({name}; {len(z.checks)} checks)'
  )
  bad = {n: c for n, c in z.checks.items() if not c[0] <= c[1]}
  assert not bad, f'{fixture_path.stem}: beyond tolerance (error, tolerance): {bad}'
