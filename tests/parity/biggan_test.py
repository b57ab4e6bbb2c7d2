"""BigGAN against the outputs of the original codebases under --reference.

The metadata of a fixture says what it is; no fixture is named here. Each check is an
error and its tolerance (the README beside the fixtures). The summary line of a fixture
shows the check that is closest to its tolerance.
"""

import dataclasses
import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import importers
from gan_jax.config.optimizers import AdamConfig
from gan_jax.config.schedules import ConstantSchedule
from gan_jax.models import losses
from gan_jax.models.base import Batch, apply_network
from gan_jax.models.biggan import BigGANInputs
from gan_jax.runtime.mesh import make_mesh
from gan_jax.runtime.sharding import replicate
from gan_jax.training import optimizers
from gan_jax.training.compile_step import make_train_step
from gan_jax.training.optimizers import make_optimizer
from gan_jax.training.train_state import TrainState, flatten_kernels
from tests.parity.huggingface_statistics import select_statistics, statistics_row
from tests.parity.reference_files import (
  Checks,
  cast,
  load,
  nhwc,
  on_one_device,
  report,
  under,
)


def error(ours, theirs):
  return float(np.max(np.abs(np.asarray(ours, np.float64) - theirs), initial=0))


def relative(ours, theirs):
  return error(ours, theirs) / float(np.max(np.abs(theirs)))


def tree_error(ours, theirs):
  """Largest absolute difference of two trees of the same structure."""
  return max(jax.tree.leaves(jax.tree.map(error, ours, theirs)))


def biggan_of(g_kwargs, d_kwargs, deep, dtype):
  gan = importers.biggan_from_kwargs(g_kwargs, d_kwargs, deep)
  return dataclasses.replace(gan, dtype=dtype)


def variables(state, gan, side):
  """A state_dict as variables of one side of `gan`."""
  g, d = jax.eval_shape(gan.init, jax.random.key(0))
  table = importers.BIGGAN_DEEP_D if gan.depth else importers.BIGGAN_D
  if side == 'G':
    return importers.convert_biggan(state, importers.BIGGAN_G, g)
  return importers.convert_biggan(state, table, d)


def biggan_generator(z, meta) -> Checks:
  kw, checks = meta['kwargs'], {}
  deep = 'deep' in meta['cls']
  mybn = bool(kw.get('mybn'))
  start = {k[2:]: v for k, v in z.items() if k.startswith('p/')}
  exact = meta.get('f64_output_saved_as') == 'float64'
  for bits in (64, 32):
    with jax.enable_x64(bits == 64):
      gan = biggan_of(kw, {}, deep, f'float{bits}')
      g = cast(variables(start, gan, 'G'), f'float{bits}')
      noise, y = z['in/z'].astype(f'float{bits}'), z['in/y']
      forward = on_one_device(
        lambda g, x, y, gan=gan: gan.run_generator(g, x, y, train=True)
      )
      image, after = forward(g, noise, y)
      # 1.2e-7 is the precision of an output saved as float32; mybn computes in float32.
      known = 1e-9 if exact else 1.2e-7
      train_tol = 2e-4 if bits == 32 else (2e-6 if mybn else known)
      eval_tol = 5e-5 if bits == 32 else (2e-6 if mybn else known)
      checks[f'train f{bits}'] = (
        error(image, nhwc(z[f'out/G_train_f{bits}'])),
        train_tol,
      )
      checks[f'eval f{bits}'] = (
        error(jax.jit(gan.generate)(g, noise, y), nhwc(z[f'out/G_eval_f{bits}'])),
        eval_tol,
      )
      key = f'after_train_f{bits}/'
      if any(k.startswith(key) for k in z):
        moved = {k[len(key) :]: v for k, v in z.items() if k.startswith(key)}
        want = variables({**start, **moved}, gan, 'G')
        tol = 2e-5 if bits == 32 else 1e-9
        for kind in ('spectral', 'batch_stats'):
          checks[f'{kind} f{bits}'] = (
            max(
              jax.tree.leaves(
                jax.tree.map(
                  lambda a, b: error(a, b) / max(1, np.abs(b).max()),
                  after[kind],
                  want[kind],
                )
              )
            ),
            2e-6 if mybn and bits == 64 else tol,
          )
  if 'standing/z' in z:
    gan = biggan_of(kw, {}, deep, 'float32')
    g = cast(variables(start, gan, 'G'), np.float32)
    passes = (jnp.asarray(z['standing/z'], jnp.float32), jnp.asarray(z['standing/y']))
    standing = on_one_device(lambda g, p: gan.standing_statistics(g, *p))
    g = standing(g, passes)
    image = jax.jit(gan.generate)(g, z['in/z'].astype(np.float32), z['in/y'])
    want = nhwc(z['standing/G_eval_f32'])
    checks['standing f32'] = (error(image, want), 5e-5)
  return checks


def biggan_discriminator(z, meta) -> Checks:
  deep, checks = 'deep' in meta['cls'], {}
  start = {k[2:]: v for k, v in z.items() if k.startswith('p/')}
  for bits in (64, 32):
    with jax.enable_x64(bits == 64):
      gan = biggan_of({}, meta['kwargs'], deep, f'float{bits}')
      d = cast(variables(start, gan, 'D'), f'float{bits}')
      x, y = nhwc(z['in/x']).astype(f'float{bits}'), z['in/y']
      forward = on_one_device(gan.run_discriminator)
      score, after = forward(d, x, y)
      again, _ = forward(after, x, y)
      evaluate = jax.jit(
        lambda d, x, y, gan=gan: apply_network(
          gan.discriminator, d, x, y, train=False, eps=gan.sn_eps
        )[0]
      )
      tol = 1e-5 if bits == 32 else 1e-10
      for name, ours in (
        ('train', score),
        ('train2', again),
        ('eval', evaluate(d, x, y)),
      ):
        key = f'out/D_{name}_f{bits}'
        checks[f'{name} f{bits}'] = (relative(ours, z[key]), tol)
      key = f'after_train_f{bits}/'
      moved = {k[len(key) :]: v for k, v in z.items() if k.startswith(key)}
      if moved:
        want = variables({**start, **moved}, gan, 'D')
        checks[f'spectral f{bits}'] = (
          tree_error(after['spectral'], want['spectral']),
          2e-5 if bits == 32 else 1e-9,
        )
      if bits == 64:
        checks |= input_gradients(z, gan, d, x, y, start)
  return checks


def input_gradients(z, gan, d, x, y, start) -> Checks:
  stored = {k[9:]: v for k, v in z.items() if k.startswith('grad_sum/')}
  if not stored:
    return {}

  def total(params, x):
    return gan.run_discriminator({**d, 'params': params}, x, y)[0].sum()

  by_params, by_x = on_one_device(jax.grad(total, (0, 1)))(d['params'], x)
  checks = {'d/dx': (relative(by_x, nhwc(stored.pop('x_f64'))), 1e-6)}
  named = {k.removesuffix('_f64'): v for k, v in stored.items()}
  if named:
    # NaN where no gradient is stored, in the layout of weights that the table reads.
    filler = {k: np.full_like(v, np.nan) for k, v in start.items()}
    want = variables({**filler, **named}, gan, 'D')['params']
    errors = [
      relative(a, b)
      for a, b in zip(jax.tree.leaves(by_params), jax.tree.leaves(want), strict=True)
      if np.isfinite(b).all() and np.abs(b).max() > 0
    ]
    checks['d/dparams'] = (max(errors), 1e-6)
  return checks


def hugging_face(z, meta) -> Checks:
  state = {k[2:]: v for k, v in z.items() if k.startswith('p/')}
  worst, rows = 0.0, 0.0
  gan = importers.huggingface_gan(meta['config'])
  table = importers.convert_huggingface(state, meta['config'])
  apply = jax.jit(partial(apply_network, gan.generator, train=False))
  for i, truncation in enumerate(z['in/truncations']):
    row = statistics_row(float(truncation), gan.stats_rows)
    rows = max(rows, error(row, z['out/modf_index'][i]))
    g = select_statistics(table, float(truncation), gan.stats_rows)
    image, _ = apply(cast(g, np.float32), z['in/z'].astype(np.float32), z['in/label'])
    worst = max(worst, error(image, nhwc(z['out/G_f32'][i])))
  return {'eval f32': (worst, 5e-6), 'row': (rows, 1e-12)}


class Replay:
  """Makes families that return the inputs of a recorded run, found by their key."""

  @staticmethod
  def of(gan, key, noise, labels, d_steps, d_accum, batch):
    """noise [K, F, Bg, dim], labels [K, F, Bg]; F is step-major, then micro-batch."""
    iterations, _, wide, _ = noise.shape
    base = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(iterations))
    keys = jax.vmap(
      lambda k: jax.vmap(jax.random.fold_in, (None, 0))(k, jnp.arange(d_steps + 1))
    )(base)
    known = jax.random.key_data(keys)

    class Recorded(type(gan)):
      def draw_inputs(self, key, index, phase):
        same = (known == jax.random.key_data(key)[None, None]).all(-1)
        k, i = jnp.divmod(jnp.argmax(same.reshape(-1)), d_steps + 1)
        size = jnp.where(i < d_steps, batch, wide)
        f = i * d_accum + index // size
        row = index % size
        return BigGANInputs(
          jnp.asarray(noise)[k, f, row], jnp.asarray(labels)[k, f, row]
        )

    return Recorded(**{f.name: getattr(gan, f.name) for f in dataclasses.fields(gan)})


class Recorded:
  """A recorded training run: its start, and our step on its inputs and images."""

  def __init__(self, z, meta, bits):
    c, self.z, self.meta, self.bits = meta['config'], z, meta, bits
    self.dtype = f'float{bits}'
    self.steps, self.accum = c['num_D_steps'], c['num_D_accumulations']
    self.batch = c['batch_size']
    self.per_step = self.steps * self.accum * self.batch
    g_kwargs, d_kwargs = meta['G_kwargs'], meta['D_kwargs']
    self.g_tx, self.d_tx = self.adam(g_kwargs, 'G'), self.adam(d_kwargs, 'D')
    self.schedule = ConstantSchedule(
      batch=self.batch,
      g_lr=g_kwargs.get('G_lr', 5e-5),
      d_lr=d_kwargs.get('D_lr', 2e-4),
      ema=c['ema_decay'],
      ema_start=max(c['ema_start'] - 1, 0) * self.per_step,
    )
    gan = biggan_of(g_kwargs, d_kwargs, 'deep' in meta['fn'], self.dtype)
    gan = dataclasses.replace(gan, split_d=bool(c['split_D']))
    self.key = jax.random.key(0)
    noise = z['in/z'].astype(self.dtype)
    shape = (self.steps, self.accum, self.batch)
    self.gan = Replay.of(gan, self.key, noise, z['in/gy'], *shape)
    self.mesh = make_mesh(jax.devices()[:1])
    self.run = make_train_step(
      self.gan,
      self.g_tx,
      self.d_tx,
      self.mesh,
      d_steps=self.steps,
      g_accum=c['num_G_accumulations'],
      g_batch=max(c['G_batch_size'], self.batch),
      mapped='jit',
    )

  def adam(self, kwargs, side):
    return make_optimizer(
      AdamConfig(
        beta1=kwargs.get(f'{side}_B1', 0.0),
        beta2=kwargs.get(f'{side}_B2', 0.999),
        eps=kwargs['adam_eps'],
        ortho=self.meta['config'][f'{side}_ortho'],
      )
    )

  def start(self, noise=0.0, seed=0):
    """The recorded initial state, with relative perturbations of size `noise`."""
    rng = np.random.default_rng(seed)
    sides = []
    for side in 'GD':
      state = under(self.z, f'init/{side}/')
      state = {
        k: v * (1 + noise * rng.standard_normal(v.shape)) for k, v in state.items()
      }
      sides.append(cast(variables(state, self.gan, side), self.dtype))
    g, d = sides
    # Placed as the step returns it, or the second step would be compiled anew.
    return replicate(
      TrainState(
        step=np.int32(0),
        images=np.uint32(0),
        g=g,
        d=d,
        g_opt=self.g_tx.init(flatten_kernels(g['params'])),
        d_opt=self.d_tx.init(flatten_kernels(d['params'])),
        ema=jax.tree.map(np.copy, g),
      ),
      self.mesh,
    )

  def iterate(self, state, k):
    images = nhwc(self.z['in/x'][k]).astype(self.dtype)
    images = images.reshape(1, -1, self.batch, *images.shape[1:])
    labels = self.z['in/dy'][k].reshape(1, -1, self.batch)
    phase = self.schedule.phase_at(k * self.per_step, self.gan.res)
    if self.bits == 64:
      s = self.schedule
      rates = dict(g_lr=s.g_lr, d_lr=s.d_lr, ema=s.ema if phase.ema else 0.0)
      phase = phase.replace(**{n: np.float64(v) for n, v in rates.items()})
    return self.run(state, Batch(images, labels), self.key, phase)

  def loss_error(self, metrics, k):
    trace = f'trace_f{self.bits}/'
    d_losses = self.z[trace + 'D_loss_real_fake_per_forward'][k, -1].mean(0)
    g_loss = self.z[trace + 'G_loss_undivided_per_forward'][k].mean()
    ours = [metrics['d_loss_real'], metrics['d_loss_fake'], metrics['g_loss']]
    return error(ours, [*d_losses, g_loss])


def training(z, meta) -> Checks:
  checks, worst = {}, 0.0
  with jax.enable_x64(True):
    exact = Recorded(z, meta, 64)
    state = exact.start()
    for k in range(meta['K']):
      state, metrics = exact.iterate(state, k)
      worst = max(worst, exact.loss_error(metrics, k))
      add_state(checks, z, f'snap_f64/itr{k + 1}/', state, exact.gan)
      if k == 0:
        betas = {s: meta[f'{s}_kwargs'].get(f'{s}_B2', 0.999) for s in 'GD'}
        recorded = recorded_moments(z, state, exact.gan, exact.steps, betas)
        for side, want in recorded.items():
          ours = moments(state.g_opt if side == 'G' else state.d_opt)
          checks[f'{side} gradient f64'] = (gradient_error(ours, want), 1e-6)
    checks['losses f64'] = (worst, 1e-10)
    add_state(checks, z, 'final_f64/', state, exact.gan)
    args = (z['in/z'][0, 0], z['in/gy'][0, 0])
    for name, net in (('G', state.g), ('Gema', state.ema)):
      image = jax.jit(exact.gan.generate)(net, *args)
      checks[f'{name} probe'] = (
        error(image, nhwc(z[f'final_f64/{name}_eval_probe'])),
        5e-9,
      )
  single = Recorded(z, meta, 32)
  state, metrics = single.iterate(single.start(), 0)
  checks['losses f32'] = (single.loss_error(metrics, 0), 1e-4)
  for side, want in recorded.items():
    ours = moments(state.g_opt if side == 'G' else state.d_opt)
    worst = gradient_error(ours, want)
    # The gradient of a ReLU network jumps where a unit crosses zero. A start may be
    # within float32 rounding of several such points; the gradient is then compared
    # with the exact gradients of points within that rounding.
    for seed in range(64):
      if worst <= 1e-3:
        break
      with jax.enable_x64(True):
        near, _ = exact.iterate(exact.start(noise=2e-7, seed=seed), 0)
        near = jax.device_get(moments(near.g_opt if side == 'G' else near.d_opt))
      worst = min(worst, gradient_error(ours, near))
    checks[f'{side} gradient f32'] = (worst, 1e-3)
  return checks


def moments(opt):
  """The second moments of an optimizer state, alone or at the end of a chain."""
  return opt.nu if hasattr(opt, 'nu') else opt[-1].nu


def gradient_error(ours, theirs):
  """Largest difference of two trees of second moments, seen as gradients.

  Each is relative to the largest value of its tensor. Tensors up to 1e-18 are left out:
  the gradient of a bias before a batch norm is rounding noise.
  """
  return max(
    error(np.sqrt(np.asarray(a, np.float64)), np.sqrt(b)) / np.sqrt(np.max(b))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    if np.max(b) > 1e-18
  )


def recorded_moments(z, state, gan, steps, betas):
  """Adam's second moments after one iteration of the recorded gradients.

  Args:
    betas: network -> Adam's beta2.
  """
  found = {}
  for side, net, n in (('G', state.g, 1), ('D', state.d, steps)):
    total, b2 = None, betas[side]
    for i in range(n):
      stored = under(z, f'grad_f64/{side}_step{i}/')
      if not stored:
        return found
      grads = params_like(stored, net, gan, side)
      square = jax.tree.map(
        lambda g, b2=b2: (1 - b2) * np.square(g, dtype=np.float64), grads
      )
      if total is not None:
        square = jax.tree.map(lambda t, s, b2=b2: b2 * t + s, total, square)
      total = square
    found[side] = total
  return found


def add_state(checks, z, prefix, state, gan):
  """Adds checks of all collections of G, D and the EMA weights of G."""
  for name, ours, tol in (
    ('G', state.g, 5e-9),
    ('D', state.d, 1e-12),
    ('Gema', state.ema, 5e-9),
  ):
    stored = under(z, f'{prefix}{name}/')
    if stored:
      want = variables(stored, gan, 'D' if name == 'D' else 'G')
      worst = max(tree_error(ours, want), checks.get(name, (0,))[0])
      checks[name] = (worst, tol)
  for side, opt, net in (('G', state.g_opt, state.g), ('D', state.d_opt, state.d)):
    stored = under(z, f'{prefix}{side}_adam_v/')
    if stored:
      want = params_like(stored, net, gan, side)
      checks[f'{side} second moments'] = (tree_error(moments(opt), want), 1e-9)


def params_like(stored, net, gan, side):
  """Our parameter tree, as optimizers see it, from arrays by official name."""
  table = {'G': importers.BIGGAN_G, 'D': importers.BIGGAN_D}[side]
  if side == 'D' and gan.depth:
    table = importers.BIGGAN_DEEP_D
  found = importers.convert_biggan(stored, table, {'params': net['params']})
  return flatten_kernels(found['params'])


def losses_and_ortho(z, meta) -> Checks:
  worst = 0.0
  with jax.enable_x64(True):
    i = 0
    while f'loss{i}/fake' in z:
      get = lambda name, i=i: z[f'loss{i}/{name}']
      fake, real = get('fake'), get('real')
      pairs = [
        (losses.hinge_d(real, fake), get('hinge_dis_real_fake')),
        (losses.hinge_g(fake), get('hinge_gen')),
        (losses.logistic_d(real, fake), get('nonsat_dis_real_fake')),
        (losses.logistic_g(fake), get('nonsat_gen')),
      ]
      by = jax.grad(lambda r, f: sum(losses.hinge_d(r, f)), (0, 1))(real, fake)
      pairs += [
        (by[0], get('hinge_dis_grad_real')),
        (by[1], get('hinge_dis_grad_fake')),
        (jax.grad(losses.hinge_g)(fake), get('hinge_gen_grad_fake')),
      ]
      worst = max([worst, *(error(a, b) for a, b in pairs)])
      i += 1
    assert i, 'no losses in the fixture'
    checks = {'losses': (worst, 1e-12)}
    gan = biggan_of(meta['G_kwargs'], meta['D_kwargs'], False, 'float64')
    shapes = dict(zip('GD', jax.eval_shape(gan.init, jax.random.key(0)), strict=True))
    for side in 'GD':
      stored = under(z, f'ortho/{side}/p/')
      params = cast(params_like(stored, shapes[side], gan, side), np.float64)
      zeros = jax.tree.map(np.zeros_like, params)
      kinds = {k.split('/')[2] for k in z if k.startswith(f'ortho/{side}/')} - {'p'}
      for kind in sorted(kinds):
        name, strength = kind.rsplit('_', 1)
        skip = () if name.endswith('noblacklist') else ('shared',)
        tx = optimizers.orthogonal_regularization(
          float(strength), skip, not name.startswith('default')
        )
        added, _ = tx.update(zeros, tx.init(params), params)
        added_there = {k: np.zeros_like(v) for k, v in stored.items()}
        added_there |= under(z, f'ortho/{side}/{kind}/')
        want = params_like(added_there, shapes[side], gan, side)
        checks[f'ortho {side} {kind}'] = (tree_error(added, want), 1e-12)
  return checks


def kind_of(path):
  """The check of a fixture, or None for an unknown kind."""
  with np.load(path) as z:
    meta, names = json.loads(str(z['meta_json'])), set(z.files)
  if 'config' in meta and 'layers' in meta['config']:
    return hugging_face
  if 'Generator' in meta.get('cls', ''):
    return biggan_generator
  if 'Discriminator' in meta.get('cls', ''):
    return biggan_discriminator
  if 'K' in meta:
    return training
  if any(n.startswith('loss0/') for n in names):
    return losses_and_ortho
  return None


def is_ours(path):
  """Whether no other file of this folder tests the fixture."""
  if {'checkpoints', 'augment_project'} & set(path.parts):
    return False
  with np.load(path) as z:
    metrics = any(n.startswith(('swd/', 'feat/', 'img/')) for n in z.files)
    return 'meta_json' in z.files and not metrics


def pytest_generate_tests(metafunc):
  root = Path(metafunc.config.getoption('--reference'))
  paths = [p for p in sorted(root.rglob('*.npz')) if is_ours(p)]
  ids = [str(p.relative_to(root).with_suffix('')) for p in paths]
  if 'fixture_path' in metafunc.fixturenames:
    slow = lambda path: () if kind_of(path) is losses_and_ortho else pytest.mark.slow
    params = [pytest.param(path, marks=slow(path)) for path in paths]
    metafunc.parametrize('fixture_path', params, ids=ids)


def test_fixture(fixture_path, record_parity):
  check = kind_of(fixture_path)
  assert check is not None, f'{fixture_path.name}: no test for this kind of file'
  z = load(fixture_path)
  meta = json.loads(str(z.pop('meta_json')))
  checks = check(z, meta)
  report(fixture_path.stem, checks, record_parity)
