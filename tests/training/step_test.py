"""One iteration is the same on any devices, by either mapping, in any split."""

import dataclasses
import functools
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gan_jax.config.optimizers import AdamConfig
from gan_jax.config.schedules import ConstantSchedule
from gan_jax.models import losses
from gan_jax.models.augmentation import OFF, UNAUGMENTED, Augmentation
from gan_jax.models.base import Batch, example_keys
from gan_jax.models.biggan import BigGAN, BigGANInputs
from gan_jax.runtime import sharding
from gan_jax.runtime.mesh import make_mesh
from gan_jax.runtime.sharding import shard_batch
from gan_jax.training import noise_scale
from gan_jax.training.compile_step import make_train_step
from gan_jax.training.optimizers import make_optimizer
from gan_jax.training.train_state import flatten_kernels
from tests.runs import first_state

SMALL = BigGAN(
  res=16,
  n_classes=3,
  dim_z=6,
  shared_dim=4,
  g_ch=4,
  d_ch=4,
  g_widths=(2, 1, 1),
  d_widths=(1, 2, 2),
)
SGD = optax.identity()  # the direction is the gradient: nothing hides its size
SCHEDULE = ConstantSchedule(batch=8, g_lr=0.05, d_lr=0.05, ema=0.9)


def shard_reals(batch, mesh):
  return Batch(**shard_batch(batch, mesh))


@functools.cache
def trained(gan, devices, mapped='jit', d_steps=1, shard=shard_reals, **settings):
  """The state after two iterations over one and the same stream of images."""
  steps, accum, batch = 2, 1, 8
  mesh = make_mesh(jax.devices()[:devices])
  b = batch // accum // devices
  run = make_train_step(
    gan, SGD, SGD, mesh, d_steps=d_steps, g_batch=b, mapped=mapped, **settings
  )
  key = jax.random.key(3)
  augmentation = settings.get('augmentation', OFF)
  state = first_state(gan, SGD, SGD, jax.random.key(1), augmentation)
  state = sharding.replicate(state, mesh)
  rng = np.random.default_rng(0)
  metrics = {}
  for i in range(steps):
    size = (d_steps * accum, devices, b)
    shape = (*size, gan.res, gan.res, gan.channels)
    images = rng.integers(0, 256, shape, np.uint8).swapaxes(0, 1)
    labels = rng.integers(0, max(gan.n_classes, 1), size).astype(np.int32)
    batch_ = shard({'images': images, 'labels': labels.swapaxes(0, 1)}, mesh)
    state, metrics = run(state, batch_, key, SCHEDULE.phase_at(i, gan.res))
  return state, metrics


def test_pmap_and_jit_give_the_same_bits():
  ours, theirs = (trained(SMALL, 4, mapped)[0] for mapped in ('pmap', 'jit'))
  for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
    np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def assert_close(ours, theirs, tolerance=1e-5):
  for (path, a), b in zip(
    jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(theirs), strict=True
  ):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    worst = np.abs(a - b).max() / max(np.abs(b).max(), 1)
    assert worst <= tolerance, f'{jax.tree_util.keystr(path)}: {worst}'


def test_one_device_equals_four():
  # Two D steps: the second one shows a first one that was not the same everywhere.
  one, one_metrics = trained(SMALL, 1, d_steps=2)
  four, four_metrics = trained(SMALL, 4, d_steps=2)
  assert_close(four, one)
  assert_close(four_metrics, one_metrics)
  for leaf in jax.tree.leaves(four):  # a forgotten all-reduce shows here
    shards = [np.asarray(s.data) for s in leaf.addressable_shards]
    assert len(shards) == 4
    for shard in shards[1:]:
      np.testing.assert_array_equal(shard, shards[0])


AUGMENTED = Augmentation(
  policy='color,translation,cutout', pipe='bgc', interval=1, ramp=32
)


@pytest.mark.slow
def test_augmentation_is_the_same_on_one_device_and_four():
  one, metrics = trained(SMALL, 1, augmentation=AUGMENTED)
  four, four_metrics = trained(SMALL, 4, augmentation=AUGMENTED)
  assert_close(four, one)
  assert_close(four_metrics, metrics)
  # Eight real scores in each iteration move p by 0.25.
  before, sign = float(metrics['augment_p']), float(metrics['d_sign'])
  assert before in (0.0, 0.25)
  assert float(one.augment['p']) == max(0.0, before + 0.25 * np.sign(sign - 0.6))
  plain, _ = trained(SMALL, 1)
  change = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), one.d, plain.d)
  assert max(map(float, jax.tree.leaves(change))) > 1e-3
  assert plain.augment == {}


@pytest.mark.slow
def test_augmentation_gives_the_same_bits_by_pmap_and_jit():
  jit, pmap = (trained(SMALL, 4, m, augmentation=AUGMENTED) for m in ('jit', 'pmap'))
  for a, b in zip(jax.tree.leaves(jit), jax.tree.leaves(pmap), strict=True):
    np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def trained_over_processes(mapped):
  """As `trained` on four devices, of which each process feeds its own two."""
  mesh = make_mesh()
  local = [
    i for i, d in enumerate(mesh.devices.flat) if d.process_index == jax.process_index()
  ]
  shard = lambda batch, mesh: shard_reals({k: v[local] for k, v in batch.items()}, mesh)
  return trained(SMALL, 4, mapped, shard=shard)


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path, free_port):
  """By both mappings, in the same two processes."""
  root = Path(__file__).parents[2]
  flags = re.sub(r'(device_count)=\d+', r'\1=2', os.environ['XLA_FLAGS'])
  program = root / 'tests/training/programs/train_on_two_processes.py'
  processes = [
    subprocess.Popen(
      [sys.executable, program, f'127.0.0.1:{free_port}', str(i), tmp_path],
      env={**os.environ, 'XLA_FLAGS': flags, 'PYTHONPATH': str(root)},
      stderr=subprocess.PIPE,
      text=True,
    )
    for i in range(2)
  ]
  errors = [p.communicate(timeout=300)[1] for p in processes]
  assert [p.returncode for p in processes] == [0, 0], errors
  one, _ = trained(SMALL, 1)
  for mapped in ('pmap', 'jit'):
    with np.load(tmp_path / f'{mapped}.npz') as z:
      assert_close([z[f'arr_{i}'] for i in range(len(z.files))], jax.tree.leaves(one))


@pytest.mark.parametrize(
  'devices',
  [pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow), 4],
)
def test_sharded_optimizers_update_the_same(devices, monkeypatch):
  """Adam with orthogonal regularization, sharded, against a single device."""
  adam = make_optimizer(AdamConfig(beta1=0.5, eps=1e-3, ortho=1e-2))
  key, phase = jax.random.key(3), SCHEDULE.phase_at(0, SMALL.res)
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (1, 8, 16, 16, 3), np.uint8)
  labels = rng.integers(0, 3, (1, 8)).astype(np.int32)

  def run(n, mapped):
    mesh = make_mesh(jax.devices()[:n])
    fn = make_train_step(SMALL, adam, adam, mesh, g_batch=8 // n, mapped=mapped)
    state = first_state(SMALL, adam, adam, jax.random.key(1))
    state = sharding.replicate(state, mesh)
    split = lambda x: np.moveaxis(x.reshape(1, n, 8 // n, *x.shape[2:]), 1, 0)
    batch = shard_reals({'images': split(images), 'labels': split(labels)}, mesh)
    for _ in range(2):
      state, metrics = fn(state, batch, key, phase)
    return fn, state, metrics

  _, replicated, expected = run(1, 'pmap')
  monkeypatch.setattr(sharding, 'MIN_SHARDED_SIZE', 16)
  fn, state, metrics = run(devices, 'jit')
  assert_close(state, replicated, 2e-4)
  assert_close(metrics, expected, 2e-4)
  for tree in (state.d_opt, state.ema):
    shares = [x.addressable_data(0).size / x.size for x in jax.tree.leaves(tree)]
    assert min(shares) == 1 / devices and max(shares) == 1
  ema = sharding.unshard(state.ema, make_mesh(jax.devices()[:devices]))
  assert all(x.is_fully_replicated for x in jax.tree.leaves(ema))
  assert_close(ema, replicated.ema, 2e-4)
  for leaf in jax.tree.leaves(state.g):
    assert len({s.data.shape for s in leaf.addressable_shards}) == 1
    for shard in leaf.addressable_shards[1:]:
      np.testing.assert_array_equal(shard.data, leaf.addressable_shards[0].data)
  assert fn._cache_size() == 1  # replicated or sharded: one program


def test_optimizers_see_kernels_as_matrices():
  seen = flatten_kernels({'kernel': jnp.ones((3, 3, 8, 4)), 'linear': jnp.ones((5, 4))})
  assert jax.tree.map(jnp.shape, seen) == {'kernel': (72, 4), 'linear': (5, 4)}
  tx = optax.scale_by_adam()
  state = first_state(SMALL, tx, tx, jax.random.key(0))
  assert all(x.ndim <= 2 for x in jax.tree.leaves((state.g_opt, state.d_opt)))


def test_the_axis_along_which_an_array_is_sharded(monkeypatch):
  monkeypatch.setattr(sharding, 'MIN_SHARDED_SIZE', 100)
  assert sharding.shard_axis((3, 3, 8, 4), 4).axis == 2
  assert sharding.shard_axis((3, 3, 6, 8), 4).axis == 3
  assert sharding.shard_axis((3, 3, 6, 6), 4).axis is None
  assert sharding.shard_axis((128,), 4).axis == 0
  assert sharding.shard_axis((3, 3, 8, 4), 1).axis is None
  assert sharding.shard_axis((8, 8), 4).axis is None  # too small


@dataclasses.dataclass(frozen=True)
class Linear:
  """A GAN without batch statistics: there micro-batches must not matter at all."""

  res: int = 4
  channels: int = 1
  n_classes: int = 0
  fake_labels: str = 'uniform'
  dim_z: int = 3
  ema_lags: ClassVar[bool] = False
  grows: ClassVar[bool] = False
  shares_batch_stats: ClassVar[bool] = False

  def init(self, key):
    g = {'params': {'w': jax.random.normal(key, (3, 16))}}
    d = {'params': {'w': jax.random.normal(jax.random.fold_in(key, 1), (16, 1))}}
    return g, d

  def draw_inputs(self, key, index, phase):
    z = jax.vmap(lambda k: jax.random.normal(k, (3,)))(example_keys(key, index))
    return BigGANInputs(z, jnp.zeros(index.shape, jnp.int32))

  def d_loss(self, g, d, batch, draws, phase, augment):
    real = batch.images.reshape(len(batch.labels), 16) / 127.5 - 1
    fake = jnp.tanh(draws.z @ g['params']['w'])
    on_real, on_fake = losses.logistic_d(
      real @ d['params']['w'], fake @ d['params']['w']
    )
    return on_real + on_fake, (g, d, {'d_loss': on_real + on_fake})

  def g_loss(self, g, d, draws, phase, augment):
    fake = jnp.tanh(draws.z @ g['params']['w'])
    loss = losses.logistic_g(fake @ d['params']['w'])
    return loss, (g, d, {'g_loss': loss})


@pytest.mark.parametrize('accum, devices', [(2, 1), (4, 2)])
def test_micro_batches_do_not_matter(accum, devices):
  gan = Linear()
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (1, 16, 4, 4, 1), np.uint8)

  def run(accum, devices):
    mesh = make_mesh(jax.devices()[:devices])
    b = 16 // accum // devices
    fn = make_train_step(gan, SGD, SGD, mesh, g_batch=b, mapped='jit')
    state = sharding.replicate(first_state(gan, SGD, SGD, jax.random.key(0)), mesh)
    x = images.reshape(accum, devices, b, 4, 4, 1).swapaxes(0, 1)
    y = np.zeros((devices, accum, b), np.int32)
    batch = shard_reals({'images': x, 'labels': y}, mesh)
    return fn(state, batch, jax.random.key(1), SCHEDULE.phase_at(0, 4))

  (ours, metrics), (theirs, expected) = run(accum, devices), run(1, 1)
  assert_close(ours, theirs, 1e-6)
  assert_close(metrics, expected, 1e-6)


@pytest.mark.parametrize('simultaneous', [False, True])
def test_g_is_updated_against_d_before_or_after_its_update(simultaneous):
  gan, key, phase = Linear(), jax.random.key(1), SCHEDULE.phase_at(0, 4)
  start = first_state(gan, SGD, SGD, jax.random.key(0))
  g, d = jax.device_get((start.g, start.d))
  mesh = make_mesh(jax.devices()[:1])
  run = make_train_step(gan, SGD, SGD, mesh, g_batch=4, simultaneous=simultaneous)
  images = np.random.default_rng(0).integers(0, 256, (1, 1, 4, 4, 4, 1), np.uint8)
  batch = {'images': images, 'labels': np.zeros((1, 1, 4), np.int32)}
  state = sharding.replicate(start, mesh)
  state, _ = run(state, shard_reals(batch, mesh), key, phase)
  # The same by hand, with the draws of the step: key of the iteration, then of G.
  d_after = jax.device_get(state.d)
  assert np.abs(d_after['params']['w'] - d['params']['w']).max() > 1e-3
  key = jax.random.fold_in(jax.random.fold_in(key, 0), 1)
  inputs = gan.draw_inputs(key, jnp.arange(4), phase)
  loss = lambda g: gan.g_loss(
    g, d if simultaneous else d_after, inputs, phase, UNAUGMENTED
  )[0]
  want = g['params']['w'] - phase.g_lr * jax.grad(loss)(g)['params']['w']
  np.testing.assert_allclose(state.g['params']['w'], want, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize('devices', [1, 2])
def test_micro_batches_of_g_do_not_matter_either(devices):
  gan = Linear()
  images = np.random.default_rng(0).integers(0, 256, (devices, 1, 8, 4, 4, 1), np.uint8)
  labels = np.zeros((devices, 1, 8), np.int32)
  mesh = make_mesh(jax.devices()[:devices])

  def run(g_accum):
    g_batch = 12 // devices // max(g_accum, 1)  # more fakes than reals
    fn = make_train_step(gan, SGD, SGD, mesh, g_batch=g_batch, g_accum=g_accum)
    state = sharding.replicate(first_state(gan, SGD, SGD, jax.random.key(0)), mesh)
    batch = shard_reals({'images': images, 'labels': labels}, mesh)
    return fn(state, batch, jax.random.key(1), SCHEDULE.phase_at(0, 4))

  (ours, metrics), (theirs, expected) = run(3), run(0)
  assert_close(ours, theirs, 1e-6)
  assert_close(metrics, expected, 1e-6)


class Labelled(Linear):
  """Reports the sums of the labels and of the squared labels that G's step gets."""

  def g_loss(self, g, d, draws, phase, augment):
    loss, (g, d, metrics) = super().g_loss(g, d, draws, phase, augment)
    for power in (1, 2):
      total = (draws.labels.astype(jnp.float32) ** power).sum()
      metrics[f'g_labels{power}'] = total
    return loss, (g, d, metrics)


@pytest.mark.parametrize('devices, accum, g_accum', [(1, 1, 0), (2, 2, 1), (2, 1, 3)])
@pytest.mark.parametrize('source', ['data', 'uniform'])
def test_fakes_of_g_have_the_labels_of_the_reals(devices, accum, g_accum, source):
  # 2 D steps of 8 reals with the labels 0, 1, ... 15; 12 fakes have the first of them.
  gan = Labelled(n_classes=16, fake_labels=source)
  mesh, k = make_mesh(jax.devices()[:devices]), 2 * accum
  labels = np.arange(16, dtype=np.int32).reshape(k, devices, -1).swapaxes(0, 1)
  images = np.zeros((*labels.shape, 4, 4, 1), np.uint8)
  g_accum, fakes = g_accum or accum, 12
  g_batch = fakes // devices // g_accum
  run = make_train_step(
    gan, SGD, SGD, mesh, d_steps=2, g_batch=g_batch, g_accum=g_accum
  )
  state = sharding.replicate(first_state(gan, SGD, SGD, jax.random.key(0)), mesh)
  batch = shard_reals({'images': images, 'labels': labels}, mesh)
  _, metrics = run(state, batch, jax.random.key(1), SCHEDULE.phase_at(0, 4))
  parts = devices * g_accum  # metrics are means over these
  used = np.arange(fakes) if source == 'data' else np.zeros(fakes)
  for power in (1, 2):
    total = float(metrics[f'g_labels{power}']) * parts
    assert total == pytest.approx((used**power).sum(), rel=1e-5)


def test_one_compile_and_a_donated_state():
  mesh = make_mesh(jax.devices()[:1])
  gan = Linear()
  run = make_train_step(gan, SGD, SGD, mesh, g_batch=4, mapped='jit')
  state = sharding.replicate(first_state(gan, SGD, SGD, jax.random.key(0)), mesh)
  batch = {
    'images': np.zeros((1, 1, 4, 4, 4, 1), np.uint8),
    'labels': np.zeros((1, 1, 4), np.int32),
  }
  for i, ema in enumerate((0.9, 0.99, 0.999)):
    before = state
    phase = ConstantSchedule(batch=4, ema=ema, g_lr=0.1 * i).phase_at(i, 4)
    state, _ = run(state, shard_reals(batch, mesh), jax.random.key(0), phase)
  assert run._cache_size() == 1
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before.g['params']))
  assert int(state.step) == 3 and int(state.images) == 12


def test_ema_weights_are_a_copy_until_ema_start():
  phase = ConstantSchedule(batch=4, ema=0.9, ema_start=10).phase_at
  assert [float(phase(images, 16).ema) for images in (0, 9, 10)] == [
    0,
    0,
    pytest.approx(0.9),
  ]


@dataclasses.dataclass(frozen=True)
class Broken(Linear):
  """A GAN of which one part is non-finite."""

  fault: str = ''

  def d_loss(self, g, d, batch, draws, phase, augment):
    loss, (g, d, metrics) = super().d_loss(g, d, batch, draws, phase, augment)
    if self.fault == 'loss':
      loss += np.nan
    if self.fault == 'gradient':  # 0, whose derivative is 0 * inf
      loss += jnp.sqrt(0 * d['params']['w'][0, 0])
    if self.fault == 'overflow':
      loss += 1e30 * d['params']['w'][0, 0]
    return loss, (g, {**d, 'moving': jnp.float32(1)}, metrics)


@pytest.mark.parametrize('fault', ['data', 'loss', 'gradient', 'overflow', ''])
def test_a_non_finite_update_is_skipped(fault):
  gan, tx = Broken(fault=fault), optax.scale_by_adam()
  mesh = make_mesh(jax.devices()[:2])
  run = make_train_step(gan, tx, tx, mesh, g_batch=2, mapped='jit')
  state = first_state(gan, tx, tx, jax.random.key(0))
  state = state.replace(d={**state.d, 'moving': jnp.float32(0)})
  before = jax.tree.map(np.asarray, state)
  images = np.ones((2, 1, 2, 4, 4, 1), np.float32)
  if fault == 'data':
    images[1, 0, 1, 2, 2, 0] = np.nan  # one pixel, on one device
  batch = {'images': images, 'labels': np.zeros((2, 1, 2), np.int32)}
  phase = SCHEDULE.phase_at(0, 4)
  after, metrics = run(
    sharding.replicate(state, mesh),
    shard_reals(batch, mesh),
    jax.random.key(1),
    phase,
  )
  assert float(metrics['skipped']) == (1 if fault else 0)
  same = [
    all(
      np.array_equal(a, b)
      for a, b in zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True)
    )
    for x, y in (
      (after.d, before.d),
      (after.d_opt, before.d_opt),
      (after.g, before.g),
      (after.g_opt, before.g_opt),
    )
  ]
  assert same == [bool(fault), bool(fault), False, False]
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after))
  assert int(after.step) == 1 and int(after.images) == 4


@dataclasses.dataclass(frozen=True)
class Known(Linear):
  """A GAN whose gradients are the reals themselves, for D, and 1 + z, for G."""

  dim_z: int = 16

  def init(self, key):
    return {'params': {'w': jnp.zeros((4, 4))}}, {'params': {'w': jnp.zeros((4, 4))}}

  def draw_inputs(self, key, index, phase):
    z = jax.vmap(lambda k: jax.random.normal(k, (16,)))(example_keys(key, index))
    return BigGANInputs(z, jnp.zeros(index.shape, jnp.int32))

  def d_loss(self, g, d, batch, draws, phase, augment):
    loss = (batch.images[..., 0] * d['params']['w'][None]).sum((1, 2)).mean()
    return loss, (g, d, {})

  def g_loss(self, g, d, draws, phase, augment):
    return ((1 + draws.z) @ g['params']['w'].reshape(16)).mean(), (g, d, {})


@functools.cache
def noise_scale_metrics(mapped, devices, accum, min_sharded_size=2**15):
  """The metrics of 300 steps of eight reals, of mean 0.5 and deviation 2, and fakes."""
  before, sharding.MIN_SHARDED_SIZE = sharding.MIN_SHARDED_SIZE, min_sharded_size
  mesh, b = make_mesh(jax.devices()[:devices]), 8 // devices // accum
  run = make_train_step(
    Known(), SGD, SGD, mesh, g_batch=b, mapped=mapped, noise_scale=True
  )
  state = sharding.replicate(first_state(Known(), SGD, SGD, jax.random.key(0)), mesh)
  phase = ConstantSchedule(batch=8, g_lr=0.0, d_lr=0.0).phase_at(0, 4)
  rng = np.random.default_rng(0)
  steps = []
  for _ in range(300):
    x = rng.normal(0.5, 2, (accum, devices, b, 4, 4, 1)).astype(np.float32)
    y = np.zeros((devices, accum, b), np.int32)
    batch = shard_reals({'images': x.swapaxes(0, 1), 'labels': y}, mesh)
    state, metrics = run(state, batch, jax.random.key(1), phase)
    steps.append({k: float(v) for k, v in metrics.items()})
  sharding.MIN_SHARDED_SIZE = before
  return {k: np.array([x[k] for x in steps]) for k in steps[0]}


def test_the_noise_scale_is_that_of_the_examples():
  found = noise_scale_metrics('jit', 4, 1)
  truth = dict(d_signal=16 * 0.5**2, d_noise=16 * 2**2, g_signal=16, g_noise=16)
  assert set(noise_scale.METRICS) == set(truth)
  for name, expected in truth.items():
    error = found[name].std() / 300**0.5
    assert error < 0.05 * (truth['d_noise'] if name[0] == 'd' else 16), name
    assert abs(found[name].mean() - expected) < 3.5 * error, name


@pytest.mark.parametrize(
  'mapped, devices, accum, min_sharded_size',
  [('pmap', 4, 1, 2**15), ('jit', 4, 1, 16), ('pmap', 2, 2, 2**15), ('jit', 1, 4, 16)],
)
def test_the_noise_scale_is_the_same(mapped, devices, accum, min_sharded_size):
  """By either mapping, sharded or replicated, for micro-batches as for devices."""
  ours, theirs = (
    noise_scale_metrics(mapped, devices, accum, min_sharded_size),
    noise_scale_metrics('jit', 4, 1),
  )
  assert set(ours) == set(theirs)
  for name in noise_scale.METRICS:
    np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5, atol=1e-4)


def test_one_gradient_has_no_noise_scale():
  assert not set(noise_scale.METRICS) & set(noise_scale_metrics('jit', 1, 1))


@pytest.mark.slow
def test_shared_batch_statistics_leave_the_noise_scale_of_g_undefined():
  alone = dataclasses.replace(SMALL, bn_group=1)
  of_d, of_both = {'d_signal', 'd_noise'}, set(noise_scale.METRICS)
  for gan, expected in ((SMALL, of_d), (alone, of_both)):
    _, metrics = trained(gan, 2, noise_scale=True)
    assert of_both & set(metrics) == expected
    assert all(float(metrics[f'{name[0]}_noise']) > 0 for name in expected)
