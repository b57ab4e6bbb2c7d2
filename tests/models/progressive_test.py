"""Growing: un-grown layers rest, devices do not matter, schedules turn on time."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gan_jax import UserError
from gan_jax.config.optimizers import AdamConfig
from gan_jax.config.schedules import ConstantSchedule, ProgressiveSchedule
from gan_jax.models import losses, progressive
from gan_jax.models.base import Batch, Phase
from gan_jax.models.progan import ProGAN
from gan_jax.models.stylegan import StyleGAN
from gan_jax.ops import resampling
from gan_jax.runtime import sharding
from gan_jax.runtime.mesh import make_mesh
from gan_jax.training import step
from gan_jax.training.optimizers import make_optimizer
from gan_jax.training.step import shard_batch

WIDTHS = (6, 6, 5, 4)  # at 1x1, 4x4, 8x8, 16x16
PROGAN = ProGAN(res=16, n_classes=3, dim_z=6, g_widths=WIDTHS, d_widths=WIDTHS)
STYLEGAN = StyleGAN(
  res=16,
  dim_z=6,
  dim_w=7,
  g_widths=WIDTHS,
  d_widths=WIDTHS,
  mapping_layers=2,
  mapping_width=5,
)
FAMILIES = pytest.mark.parametrize(
  'gan', [PROGAN, STYLEGAN], ids=lambda gan: type(gan).__name__
)


def phase(res, alpha=1.0, lr=0.0):
  return Phase(*(np.float32(v) for v in (alpha, lr, lr, 0.9)), res=res)


ADAM = make_optimizer(AdamConfig(beta2=0.99, tf_eps=True))


def trained(gan, devices, at, steps=2, batch=8, tx=ADAM):
  """The state after some iterations over one and the same stream of pictures."""
  mesh = make_mesh(jax.devices()[:devices])
  b = batch // devices
  run = step.make_train_step(gan, tx, tx, mesh, g_batch=b, mapped='jit')
  state = sharding.replicate(step.init_state(gan, tx, tx, jax.random.key(1)), mesh)
  rng = np.random.default_rng(0)
  for _ in range(steps):
    shape = (1, devices, b, at.res, at.res, gan.channels)
    images = rng.integers(0, 256, shape, np.uint8).swapaxes(0, 1)
    labels = np.arange(batch, dtype=np.int32).reshape(devices, 1, b)
    labels %= max(gan.n_classes, 1)
    whole = shard_batch({'images': images, 'labels': labels}, mesh)
    state, metrics = run(state, whole, jax.random.key(3), at)
  return state, metrics


@FAMILIES
def test_one_device_equals_four(gan):
  # A per-device batch of 2 makes the groups of 4 span devices.
  # Plain gradients: Adam would make steps of those that are zero but for rounding.
  at = phase(8, 0.25, 1e-2)
  one, four = (trained(gan, n, at, tx=optax.identity()) for n in (1, 4))
  for (path, a), b in zip(
    jax.tree_util.tree_leaves_with_path(four), jax.tree.leaves(one), strict=True
  ):
    worst = np.max(np.abs(np.asarray(a) - np.asarray(b)), initial=0)
    assert worst <= 1e-5 * max(np.max(np.abs(b)), 1), jax.tree_util.keystr(path)


@FAMILIES
def test_only_what_has_grown_learns(gan):
  before = step.init_state(gan, *[make_optimizer(AdamConfig())] * 2, jax.random.key(1))
  for at, still in (
    (phase(4, 1.0, 1e-3), ('rgb8', 'rgb16', 'conv8', 'conv16')),
    (phase(8, 0.5, 1e-3), ('rgb16', 'conv16')),
    (phase(16, 1.0, 1e-3), ('rgb4', 'rgb8')),  # the lower picture has faded out
  ):
    after, _ = trained(gan, 1, at, steps=1)
    for side in ('g', 'd'):
      old = jax.tree_util.tree_leaves_with_path(getattr(before, side)['params'])
      new = jax.tree.leaves(getattr(after, side)['params'])
      opt = jax.tree.leaves(getattr(after, f'{side}_opt').nu)
      for (path, a), b, nu in zip(old, new, opt, strict=True):
        name = jax.tree_util.keystr(path, simple=True, separator='/')
        if name.split('/')[-2].removesuffix('_up').removesuffix('_down') in still:
          np.testing.assert_array_equal(a, b, name)
          assert not np.any(nu), name  # gradients exactly zero
        elif name.endswith('kernel') and 'style' not in name and 'embed' not in name:
          assert np.any(np.asarray(a) != np.asarray(b)), (name, at.res)


def test_penalties_are_finite_differences(rng_seed):
  rng = np.random.default_rng(rng_seed)
  with jax.enable_x64(True):
    real, fake = (jnp.asarray(rng.normal(size=(3, 4, 4, 2))) for _ in range(2))
    mix = jnp.asarray(rng.uniform(size=3))
    a = jnp.asarray(rng.normal(size=(4, 4, 2, 1)))
    critic = lambda x: (
      jnp.tensordot(jnp.tanh(x), a, 3) + jnp.square(x).sum((1, 2, 3))[:, None]
    )

    def squares(images):
      """Squared gradients of the scores, by central differences in every pixel."""
      total, h = np.zeros(len(images)), 1e-5
      for i in np.ndindex(*images.shape[1:]):
        up, down = (images.at[(slice(None), *i)].add(s * h) for s in (1, -1))
        total += np.square((critic(up) - critic(down))[:, 0] / (2 * h))
      return total

    for copies in (1, 4):
      want = squares(real).mean() / copies
      scores, ours = losses.r1(critic, real, copies)
      np.testing.assert_allclose(ours, want, rtol=1e-8)
      np.testing.assert_array_equal(scores, critic(real))
      mixed = real + (fake - real) * mix[:, None, None, None]
      want = np.square(np.sqrt(squares(mixed) / copies) - 1).mean()
      ours = losses.gradient_penalty(critic, real, fake, mix, copies)
      np.testing.assert_allclose(ours, want, rtol=1e-8)


def test_copies_make_up_for_the_resolution(rng_seed):
  """A penalty at native resolution is the one on the picture repeated to full size."""
  rng = np.random.default_rng(rng_seed)
  images = jnp.asarray(rng.normal(size=(2, 4, 4, 1)), jnp.float32)
  native = lambda x: jnp.sum(jnp.sin(x), (1, 2, 3))[:, None]
  full = lambda x: native(resampling.downsample(resampling.downsample(x)))
  copies = progressive.pixel_copies(16, phase(4))
  np.testing.assert_allclose(
    losses.r1(native, images, copies)[1],
    losses.r1(full, resampling.upsample(resampling.upsample(images)))[1],
    rtol=1e-5,
  )


def test_reals_fade_and_must_fit():
  images = np.arange(128, dtype=np.uint8).reshape(2, 8, 8, 1)
  batch = Batch(jnp.asarray(images), None)
  sharp = progressive.blend_reals(batch, phase(8, 1.0), jnp.float32)
  np.testing.assert_allclose(sharp, images / 127.5 - 1, atol=1e-6)
  half = progressive.blend_reals(batch, phase(8, 0.5), jnp.float32)
  boxes = resampling.upsample(resampling.downsample(sharp))
  np.testing.assert_allclose(half, (sharp + boxes) / 2, atol=1e-6)
  with pytest.raises(UserError, match='images of 8x8, but training has come to 16x16'):
    progressive.blend_reals(batch, phase(16), jnp.float32)


def test_schedule_turns_where_it_says():
  grow = ProgressiveSchedule(
    resolutions=(8, 16, 32),
    stabilise=100,
    fade=50,
    batch=(32, 16, 8),
    g_lr=(1e-3, 2e-3, 3e-3),
  )
  seen = {i: grow.phase_at(i, 32) for i in (0, 100, 101, 125, 150, 251, 300, 10**6)}
  assert [p.res for p in seen.values()] == [8, 8, 16, 16, 16, 32, 32, 32]
  alphas = [float(p.alpha) for p in seen.values()]
  np.testing.assert_allclose(alphas, [1, 1, 0.02, 0.5, 1, 0.02, 1, 1], atol=1e-6)
  assert grow.stages(32) == ((-1, 8, 32), (100, 16, 16), (250, 32, 8))
  for after, res, _ in grow.stages(32)[1:]:
    assert grow.phase_at(after, 32).res == res // 2
    assert grow.phase_at(after + 1, 32).res == res
  rates = [float(seen[i].g_lr) for i in (100, 101, 300)]
  np.testing.assert_allclose(rates, [1e-3, 2e-3, 3e-3], rtol=1e-6)
  resets = [i for i in range(400) if grow.resets_between(i, i + 1)]
  assert resets == [100, 149, 250, 299]  # a fade begins, ends, begins, ends
  assert not grow.resets_between(10**5, 10**6)
  assert not ConstantSchedule(batch=1).resets_between(0, 10**6)
  half = dataclasses.replace(grow, ema_half_life=1000)
  np.testing.assert_allclose(half.phase_at(0, 32).ema, 0.5 ** (32 / 1000), rtol=1e-6)
  still = ProgressiveSchedule(
    resolutions=(32,), batch=(4,), stabilise=0, fade=0
  ).phase_at(5, 32)
  assert (still.res, float(still.alpha)) == (32, 1)


def test_a_jump_without_a_fade():
  jump = ProgressiveSchedule(resolutions=(4, 8), batch=(4,), stabilise=10, fade=0)
  ((_, *_), (after, res, _)) = jump.stages(8)
  assert [jump.phase_at(i, 8).res for i in (after, after + 1)] == [4, res]
  assert [i for i in range(30) if jump.resets_between(i, i + 1)] == [after]


def test_reset_returns_optimizers_to_their_start():
  state, _ = trained(PROGAN, 2, phase(4, 1.0, 1e-3), steps=1)
  mesh = make_mesh(jax.devices()[:2])
  tx = make_optimizer(AdamConfig(beta2=0.99, tf_eps=True))
  params = jax.device_get(state.g['params'])
  state = step.make_reset(tx, tx, mesh)(state)
  assert not any(np.any(x) for x in jax.tree.leaves((state.g_opt, state.d_opt)))
  jax.tree.map(np.testing.assert_array_equal, params, state.g['params'])
  assert int(state.step) == 1


@pytest.mark.parametrize('beta1', [0.0, 0.5])
def test_tf_adam_is_its_formula(beta1, rng_seed):
  rng = np.random.default_rng(rng_seed)
  tx = make_optimizer(AdamConfig(beta1=beta1, beta2=0.9, eps=0.1, tf_eps=True))
  state, m, v = tx.init(jnp.zeros(4)), 0.0, 0.0
  for t in range(1, 4):
    g = rng.normal(size=4)
    m, v = beta1 * m + (1 - beta1) * g, 0.9 * v + 0.1 * g**2
    want = np.sqrt(1 - 0.9**t) / (1 - beta1**t) * m / (np.sqrt(v) + 0.1)
    direction, state = tx.update(jnp.asarray(g, jnp.float32), state)
    np.testing.assert_allclose(direction, want, rtol=1e-5)


@FAMILIES
def test_pictures_of_every_stage(gan):
  g, d = jax.eval_shape(gan.init, jax.random.key(0))
  full = jax.eval_shape(
    dataclasses.replace(gan, dtype='bfloat16').init, jax.random.key(0)
  )
  assert jax.tree.map(jnp.shape, full) == jax.tree.map(jnp.shape, (g, d))
  z, labels = jnp.zeros((2, 6)), jnp.zeros(2, jnp.int32)
  for res in (4, 8, 16):
    out = jax.eval_shape(lambda g, res=res: gan.generate(g, z, labels, res=res), g)
    assert out.shape == (2, res, res, 3) and out.dtype == jnp.float32


def test_psi_draws_w_to_its_average():
  g, _ = STYLEGAN.init(jax.random.key(0))
  g['moving'] = {'w_avg': jnp.full((1, 7), 2.0)}
  cut = dataclasses.replace(STYLEGAN, truncated_layers=2)
  w = cut.w(g, jnp.ones((3, 6)), jnp.zeros(3, jnp.int32))
  ws = cut.truncate(g, w, 0.0)
  np.testing.assert_array_equal(ws[:, :2], 2.0)
  np.testing.assert_array_equal(ws[:, 2:], np.repeat(w[:, None], 4, 1))
  whole = cut.truncate(g, w, 1.0)
  np.testing.assert_array_equal(whole, np.repeat(w[:, None], 6, 1))


def test_draws_follow_the_example_not_the_device():
  at, key = phase(8), jax.random.key(0)
  whole = STYLEGAN.draw_inputs(key, jnp.arange(8), at)
  part = STYLEGAN.draw_inputs(key, jnp.arange(4, 8), at)
  assert int(whole.cutoff) == int(part.cutoff) and len(whole.noise) == 4
  ends = jax.tree.map(lambda x: x if x.ndim == 0 else x[4:], whole)
  jax.tree.map(np.testing.assert_array_equal, part, ends)
  cutoffs = [
    int(STYLEGAN.draw_inputs(jax.random.key(i), jnp.arange(1), at).cutoff)
    for i in range(60)
  ]
  assert set(cutoffs) == {1, 2, 3, 4}  # 4: not mixed


@pytest.mark.parametrize(
  'make, complaint',
  [
    (lambda: ProGAN(res=24), 'res is 24: growing takes powers of two'),
    (lambda: ProGAN(res=16, g_widths=(4, 4)), 'g_widths has 2 entries'),
    (lambda: StyleGAN(res=16, loss='hinge'), "loss is 'hinge': allowed are"),
    (
      lambda: ProgressiveSchedule((5,), (4,)),
      r'resolutions is \(5,\): it starts from a power',
    ),
    (lambda: ProgressiveSchedule((), (4,)), r'resolutions is \(\)'),
    (lambda: ProgressiveSchedule((4, 16), (4,)), 'from 4 to 16: 8 has to come next'),
    (
      lambda: ProgressiveSchedule((4, 8), ()),
      'schedule.batch has 0 entries: it needs 1 or 2',
    ),
    (lambda: ProgressiveSchedule((4, 8), (4, 0)), 'schedule.batch has 0: at least 1'),
    (
      lambda: ProgressiveSchedule((4, 8), (4,)).stages(16),
      'ends in 8, but model.res is 16',
    ),
    (lambda: ProgressiveSchedule((4, 8), (4,), 0, 0), 'there is no time to grow'),
  ],
)
def test_what_has_no_network_is_refused(make, complaint):
  with pytest.raises(UserError, match=complaint):
    make()
