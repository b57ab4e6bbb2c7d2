"""Augmentation against the original implementations, read from --reference.

The tests know kinds of files and keys, but no file names, sizes, seeds or settings.
Tolerances are those beside the fixtures.
"""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erfinv

from gan_jax.models.augmentation import Augmentation, ada, diffaugment, geometry
from gan_jax.models.augmentation import wavelets as filters
from gan_jax.models.augmentation.augmentation import adjusted
from tests.parity.reference_files import (
  error,
  kind_of,
  load,
  nhwc,
  parametrize_files,
  report,
  under,
)

KINDS = {'DiffAugment': 'diffaugment', 'AugmentPipe': 'ada', 'training_loop': 'p'}


def pytest_generate_tests(metafunc):
  parametrize_files(metafunc, KINDS)


# DiffAugment


def check_diffaugment(z):
  checks = {}
  cases = sorted({k.rpartition('/')[0] for k in z if '/y_float' in k})
  for case in cases:
    shape, policy = case.split('/')
    for dtype, tolerance in ((np.float64, 1e-12), (np.float32, 1e-6)):
      kind, names = np.dtype(dtype).name, policy.split('+')
      if dtype is np.float32 and 'color' in names[:-1]:
        continue  # integers after colours differ there, and only float64's are stored
      images = nhwc(z[f'{shape}/x']).astype(dtype)
      raw = under(z, f'{case}/draw/') | under(z, f'{case}/draw_{kind}/')
      draws = {k: raw[k].astype(dtype) for k in raw if 'axis' not in k}
      for name in {'translation', 'cutout'} & {*names}:
        axes = [k for k in sorted(raw) if k.startswith(name)]
        draws[name] = np.stack([raw[k] for k in axes], -1)
      augment = jax.jit(lambda x, d, names=names: diffaugment.apply(names, x, d))
      if 'color' not in names:  # pure copies
        tolerance = 0.0
      found = error(augment(images, draws), nhwc(z[f'{case}/y_{kind}']))
      checks[f'{case} {kind}'] = found, tolerance
      if dtype is np.float64:
        cotangent = nhwc(z[f'{shape}/cotangent']).astype(dtype)
        _, back = jax.vjp(lambda x, f=augment, d=draws: f(x, d), images)
        found = error(back(cotangent)[0], nhwc(z[f'{case}/grad_x_float64']))
        checks[f'{case} gradient'] = found, 1e-6
  return checks


# ADA


def debug_draws(q, b, noise, dtype):
  """Draws of the original's debug percentile: all gates are open."""
  sizes = {name: (b, n) if n > 1 else (b,) for name, n in ada.VALUES.items()}
  normal = erfinv(2 * q - 1)  # without the factor sqrt(2), as there
  values = {
    name: np.full(size, q if name in ada.UNIFORM else normal, dtype)
    for name, size in sizes.items()
  }
  values['rotate_post'][:] = 0.5  # no rotation
  values['noise'][:] = erfinv(q)
  gates = {n: np.zeros((b, k) if k > 1 else b, dtype) for n, k in ada.GATES.items()}
  return ada.Draws(values, gates, noise)


def recorded_draws(raw, b, dtype):
  """Recorded draws of a call; what its pipe does not draw is not used."""
  draws = debug_draws(0.5, b, None, dtype)
  for key, value in raw.items():
    name, kind = key.split('/')
    if name.startswith('imgfilter_band'):
      part = draws.values if kind == 'value' else draws.gates
      part['imgfilter'][:, int(name[-1])] = value
    elif kind == 'gate':
      draws.gates[name][:] = value
    elif kind in ('value', 'center'):
      draws.values[name][:] = value
  field = raw.get('noise/field')
  noise = None if field is None else nhwc(field).astype(dtype)
  return draws._replace(noise=noise)


class Case:
  """One call of the original pipe."""

  def __init__(self, z, prefix, dtype):
    self.arrays, self.dtype = under(z, f'{prefix}/'), dtype
    kind, name, shape, how = prefix.split('/')
    self.images = nhwc(z[f'x/{shape}']).astype(dtype)
    settings = json.loads(str(self.arrays.get('kwargs_json', '{}')))
    known = {f.name for f in dataclasses.fields(ada.Ranges)}
    ranges = {k: v for k, v in settings.items() if k in known}
    self.ranges = ada.Ranges(
      **{k: tuple(v) if isinstance(v, list) else v for k, v in ranges.items()}
    )
    names = [k for k in settings if k not in known] or name.split('_')
    self.pipe = ada.PIPES.get(name) or tuple(names)
    b = len(self.images)
    if kind == 'debug':
      noise = self.arrays.get('noise_field')
      noise = None if noise is None else nhwc(noise).astype(dtype)
      self.draws, self.p = debug_draws(float(how), b, noise, dtype), dtype(1)
    else:
      self.draws = recorded_draws(under(self.arrays, 'draw/'), b, dtype)
      self.p = dtype(np.float32(how.removeprefix('p')))

  def run(self):
    """Everything that a file may hold of this case, in one program."""
    _, h, w, c = self.images.shape
    pads = self.arrays.get('pad_x0x1y0y1')
    margins = None if pads is None else geometry.Margins(*map(int, pads))
    args = self.draws, self.p, self.ranges
    geometric = tuple(n for n in self.pipe if n in ada.BLIT + ada.GEOM)
    others = tuple(n for n in self.pipe if n not in geometric)

    def compute(images):
      matrix = ada.inverse_matrix(self.pipe, self.draws, self.p, h, w, self.ranges)
      largest = lambda x: ada.apply(self.pipe, x, *args)
      out, y = {'G_inv': matrix, 'largest': largest(images)}, images
      if margins:
        y = geometry.warp(y, matrix, margins)
        out['positions'] = geometry.sample_positions(matrix, h, w, margins)
      out['y'] = ada.apply(others, y, *args)
      colors = ada.color_matrix(self.pipe, self.draws, self.p, self.ranges, c)
      out['C'] = colors[:, :3].mean(1, keepdims=True) if c == 1 else colors
      out['band_gain'] = ada.band_gains(*args)
      out['noise_sigma'] = ada.noise_sigma(*args)
      out['cutout_size'] = jnp.stack([ada.cutout_size(*args)] * 2, -1)
      out['cutout_center'] = self.draws.values['cutout']
      if 'grad_x' in self.arrays:
        cotangent = nhwc(self.arrays['cotangent']).astype(self.dtype)
        out['grad_x'] = jax.vjp(largest, images)[1](cotangent)[0]
      return out

    return jax.jit(compute)(self.images)


def positions_of(theta, h, w, pads):
  """Rows and columns that the original samples, counted as ours."""
  x0, x1, y0, y1 = (int(n) for n in pads)
  x = (2 * np.arange(1, 2 * w + 11) + 1) / (2 * w + 12) - 1
  y = (2 * np.arange(1, 2 * h + 11) + 1) / (2 * h + 12) - 1
  grid = np.stack(np.broadcast_arrays(x[None, :], y[:, None], 1.0), -1)
  normalised = np.einsum('bij,pqj->bpqi', theta, grid)
  wide, high = 2 * (w + x0 + x1), 2 * (h + y0 + y1)
  columns = ((normalised[..., 0] + 1) * wide - 1) / 2
  rows = ((normalised[..., 1] + 1) * high - 1) / 2
  return rows + 1, columns + 1  # ours begin with a row of zeros


IMAGES = {'y', 'grad_x', 'noise_field', 'cotangent'}


def check_case(z, prefix, dtype):
  case = Case(z, prefix, dtype)
  out, wide = case.run(), dtype is np.float64
  matrices = 1e-9 if wide else 1e-6
  checks = {}
  for name, theirs in case.arrays.items():
    if name == 'theta_normalised':
      size = case.images.shape[1:3]
      theirs = positions_of(theirs, *size, case.arrays['pad_x0x1y0y1'])
      found = max(map(error, out['positions'], theirs))
      checks[name] = found, matrices * 4 * max(size)
    elif name == 'C' and theirs.ndim == 2:  # nothing was drawn
      checks[name] = error(theirs, np.eye(4)), 0.0
    elif name in out and name not in IMAGES:
      largest = max(1.0, np.abs(theirs).max())  # positions are in pixels
      checks[name] = error(out[name], theirs), matrices * largest
  checks['y'] = error(out['y'], nhwc(case.arrays['y'])), 5e-7 if wide else 2e-5
  # The largest margins, as in training.
  found = error(out['largest'], nhwc(case.arrays['y']))
  checks['largest margins'] = found, 2e-6 if wide else 2e-5
  if 'grad_x' in out:
    checks['grad_x'] = error(out['grad_x'], nhwc(case.arrays['grad_x'])), 2e-5
  return {f'{prefix}/{k} {np.dtype(dtype).name}': v for k, v in checks.items()}


def check_ada(z):
  checks = {
    'sym6': (error(filters.lowpass(), z['filters/Hz_geom_f32']), 0.0),
    'bank': (error(filters.filter_bank(), z['filters/Hz_fbank_f32']), 1e-12),
  }
  for key in sorted(k for k in z if k.endswith('/y')):
    prefix = key.removesuffix('/y')
    checks |= check_case(z, prefix, np.float64)
    if prefix.startswith('random'):
      with jax.enable_x64(False):
        checks |= check_case(z, prefix, np.float32)
  return checks


# The adjustment of p


def check_p(z):
  target = float(z['target'])
  checks = {}
  for key in (k for k in z if k.endswith('/p')):
    name, theirs = key.removesuffix('/p'), z[key]
    b, kimg, interval = (
      int(part.lstrip('Bkimgnterval')) for part in name.split('_')[-3:]
    )
    signs = z.get(f'{name}/signs')
    if signs is None:  # all of the same sign
      signs = np.ones((len(theirs) - 1, interval, b), np.int8)
    run = Augmentation(pipe='bgc', target=target, ramp=1000 * kimg, interval=interval)
    step = jax.jit(lambda s, m, i, run=run, b=b: run.next_state(s, m, b, i))
    with jax.enable_x64(False):
      state, p, iteration = run.init_state(), [0.0], 0
      for update in signs:
        for batch in update:
          iteration += 1
          state = step(state, np.float32(batch.mean()), iteration)
        p.append(float(state['p']))
    checks[key] = error(p, theirs), 1e-6
    if f'{name}/adjust' in z:
      means = signs.mean((1, 2))
      checks[f'{name}/mean_sign'] = error(means, z[f'{name}/mean_sign']), 1e-12
      # From 1, which no adjustment of these leaves downwards.
      moved = [
        float(adjusted(1.0, m, b * interval, target, run.ramp)) - 1 for m in means
      ]
      checks[f'{name}/adjust'] = error(moved, z[f'{name}/adjust']), 1e-12
  return checks


def test_the_numbers_of_the_original(fixture_path, record_parity):
  z = load(fixture_path)
  meta = json.loads(str(z.pop('meta_json')))
  check = {'diffaugment': check_diffaugment, 'ada': check_ada, 'p': check_p}
  if 'ada_target' in meta:
    z['target'] = meta['ada_target']
  with jax.enable_x64(True):
    checks = check[kind_of(fixture_path, KINDS)](z)
  report(f'augmentation {fixture_path.stem}', checks, record_parity)


def test_the_files_are_found(reference):
  kinds = {kind_of(p, KINDS) for p in reference.rglob('*.npz')}
  if not kinds & set(KINDS.values()):
    pytest.skip('this --reference holds no augmentation')
  assert kinds >= set(KINDS.values())
