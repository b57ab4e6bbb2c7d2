"""Metrics: blocks, devices and streams change nothing; mistakes are one sentence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import linalg

from gan_jax import UserError, data
from gan_jax.evaluation.metrics import (
  METRICS,
  Observed,
  feature_network,
  features,
  images,
  inception,
  ppl,
  small_network,
)
from gan_jax.evaluation.metrics.features import FeatureStats, InceptionScore
from gan_jax.models.stylegan import StyleGAN
from gan_jax.runtime.mesh import make_mesh


def stats_of(rows, keep=0, parts=1, labels=None):
  stats = FeatureStats(rows.shape[1], keep)
  for part in np.array_split(np.arange(len(rows)), parts):
    stats.update(rows[part], None if labels is None else labels[part])
  return stats


def size_of(seen):
  return sum(x.nbytes for x in seen.arrays().values())


# Feature statistics.


def test_a_stream_is_its_whole(rng_seed):
  rng = np.random.default_rng(rng_seed)
  # Far from the origin, where sums of squares would lose the covariance.
  rows = (1e3 + rng.normal(size=(300, 7))).astype(np.float32)
  exact = np.cov(rows.astype(np.float64), rowvar=False)
  for parts in (1, 13):
    stats = stats_of(rows, keep=40, parts=parts)
    np.testing.assert_allclose(stats.mean, rows.mean(0, dtype=np.float64), rtol=1e-13)
    np.testing.assert_allclose(stats.covariance, exact, rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(stats.rows, rows[:40])
  first, second = stats_of(rows[:110], keep=40), stats_of(rows[110:], keep=0)
  first.merge(second)
  np.testing.assert_allclose(first.covariance, exact, rtol=1e-10, atol=1e-12)
  assert first.n == 300
  again = FeatureStats.restore(first.arrays())
  np.testing.assert_array_equal(again.covariance, first.covariance)
  np.testing.assert_array_equal(again.rows, rows[:40])


def test_size_does_not_grow_with_the_stream(rng_seed):
  rng = np.random.default_rng(rng_seed)
  pictures = rng.integers(0, 256, (24, 32, 32, 3), np.uint8)

  def sizes(times):
    stats = FeatureStats(5, keep=50)
    score = InceptionScore([0, 1000], 4)
    held, pairs = images.Patches(keep=16), images.Similarity(keep=16)
    for _ in range(times):
      stats.update(rng.normal(size=(50, 5)).astype(np.float32))
      score.update(rng.normal(size=(50, 4)))
      held.update(pictures)
      pairs.update(pictures)
    assert held.n == 16 and pairs.pairs == 8
    return [size_of(x) for x in (stats, score, held, pairs)]

  assert sizes(1) == sizes(20)


def test_frechet_distance_is_the_textbook_formula(rng_seed):
  rng = np.random.default_rng(rng_seed)
  mix = rng.normal(size=(6, 6))
  a, b = rng.normal(size=(200, 6)), 1 + rng.normal(size=(150, 6)) @ mix
  a, b = a.astype(np.float32), b.astype(np.float32)
  x, y = stats_of(a), stats_of(b)
  root = linalg.sqrtm(x.covariance @ y.covariance).real
  shift = x.mean - y.mean
  want = shift @ shift + np.trace(x.covariance + y.covariance - 2 * root)
  assert features.frechet_distance(x, y) == pytest.approx(want, rel=1e-9)
  assert features.frechet_of_rows(a, b) == pytest.approx(want, rel=1e-9)
  assert features.frechet_distance(x, x) == pytest.approx(0, abs=1e-10)
  # Of fewer rows than dimensions both ways agree too.
  few = features.frechet_distance(stats_of(a[:4]), stats_of(b[:5]))
  assert features.frechet_of_rows(a[:4], b[:5]) == pytest.approx(few, rel=1e-7)


def test_intra_class_distance_and_accuracy():
  rng = np.random.default_rng(0)
  labels = np.arange(120, dtype=np.int32) % 3
  centres = 10 * np.eye(3, 4, dtype=np.float32)
  draw = lambda y: centres[y] + rng.normal(size=(len(y), 4)).astype(np.float32)
  real = stats_of(draw(labels), keep=120, labels=labels)
  right = stats_of(draw(labels), keep=120, labels=labels)
  # The same pictures under other classes: the whole is as before, no class is.
  wrong = stats_of(draw((labels + 1) % 3), keep=120, labels=labels)
  assert features.class_accuracy(real, right) == (1.0, 1.0)
  assert features.class_accuracy(real, wrong) == (0.0, 1.0)
  assert features.frechet_distance(real, wrong) < 1
  assert features.intra_class_frechet(real, right) < 1
  assert features.intra_class_frechet(real, wrong) == pytest.approx(200, rel=0.1)
  alone = stats_of(draw(labels[:3]), keep=3, labels=labels[:3])
  with pytest.raises(UserError, match='class 0 has 40 real and 1 generated'):
    features.intra_class_frechet(real, alone)


def test_inception_score_by_hand():
  # Two certain classes, evenly drawn: two; one class: one.
  logits = 100 * np.eye(3)[np.arange(8) % 2]
  score = InceptionScore(features.split_borders(8, 2), 3)
  for part in np.array_split(logits, 3):
    score.update(part)
  assert score.result() == pytest.approx((2, 0))
  halves = InceptionScore([0, 8], 3), InceptionScore([0, 8], 3, first=5)
  halves[0].update(logits[:5])
  halves[1].update(logits[5:])
  halves[0].merge(halves[1])
  assert halves[0].result()[0] == pytest.approx(2) and halves[0].seen == 8
  same = InceptionScore([0, 8], 3)
  same.update(logits[[0] * 8])
  assert same.result()[0] == pytest.approx(1)


def brute(real, fake, k, closed):
  """Neighbourhoods from all distances, in float64."""
  distances = lambda a, b: np.square(a[:, None].astype(float) - b[None]).sum(-1)
  inside = np.less_equal if closed else np.less
  ball = lambda x: np.sort(distances(x, x), 1)[:, k]
  d = distances(fake, real)
  in_real, in_fake = inside(d, ball(real)[None]), inside(d, ball(fake)[:, None])
  return (
    in_real.any(1).mean(),
    in_fake.any(0).mean(),
    in_real.sum(1).mean() / k,
    in_real.any(0).mean(),
  )


@pytest.mark.parametrize('kind', ['spread', 'ties', 'far'])
def test_neighbours_are_exact_on_any_devices(kind, rng_seed, monkeypatch):
  monkeypatch.setattr(features, '_BLOCK', 32)
  rng = np.random.default_rng(rng_seed)
  if kind == 'ties':  # many equal distances and equal points
    real, fake = (rng.integers(0, 3, (n, 3)).astype(np.float32) for n in (90, 75))
  else:
    real, fake = (rng.normal(size=(n, 5)).astype(np.float32) for n in (90, 75))
  if kind == 'far':  # float32 distances cannot tell these neighbours apart
    real, fake = real + 3e4, fake + 3e4
    real[0], fake[0] = 1e6, -1e6
  for closed in (True, False):
    want = brute(real, fake, 3, closed)
    for devices in (1, 8):
      mesh = make_mesh(jax.devices()[:devices])
      ours = features.neighbourhoods(real, fake, 3, closed=closed, mesh=mesh)
      assert ours == pytest.approx(want, rel=1e-12)


def test_what_features_cannot_score():
  rows = np.ones((4, 3), np.float32)
  stats = stats_of(rows)
  rows[2, 1] = np.nan
  with pytest.raises(UserError, match='features of image 6 are not finite'):
    stats.update(rows)
  with pytest.raises(UserError, match='4 real images .* rank 3 .* at least 65 images'):
    features.require_full_rank(4, 64, 'real')
  with pytest.raises(UserError, match='subsets of 9 images'):
    features.kernel_distance(rows, rows, size=9)
  with pytest.raises(UserError, match='no 4-th nearest neighbour'):
    features.neighbour_radii(rows, 4)
  few = Observed(None, stats_of(np.ones((3, 5), np.float32)))
  with pytest.raises(UserError, match='rank 2'):
    METRICS['fid'].measure(few, few)


# Images.


def test_swd_of_parts_is_that_of_the_whole(rng_seed):
  rng = np.random.default_rng(rng_seed)
  real, fake = rng.integers(0, 256, (2, 12, 32, 32, 1), np.uint8)

  def held(pictures, *shares):
    parts = []
    for first, last in zip(shares[:-1], shares[1:], strict=True):
      part = images.Patches(keep=10, first=first)
      for i in range(first, last, 3):
        part.update(pictures[i : min(i + 3, last)])
      parts.append(part)
    for part in parts[1:]:
      parts[0].merge(part)
    return images.Patches.restore(parts[0].arrays())

  whole = images.swd(held(real, 0, 12), held(fake, 0, 12))
  np.testing.assert_allclose(images.swd(held(real, 0, 5, 12), held(fake, 0, 12)), whole)
  assert len(whole) == 3 and min(whole) > 1
  assert images.swd(held(real, 0, 12), held(real, 0, 12)) == [0, 0, 0]
  with pytest.raises(UserError, match='10 real and 5 generated'):
    images.swd(held(real, 0, 12), held(fake, 0, 5))


def test_ms_ssim(rng_seed):
  rng = np.random.default_rng(rng_seed)
  pictures = rng.integers(0, 256, (7, 32, 64, 1), np.uint8)
  np.testing.assert_allclose(images.ms_ssim(pictures, pictures), 1, atol=1e-9)
  held = images.Similarity(keep=7)
  for part in np.array_split(pictures, 3):
    held.update(part)
  want = images.ms_ssim(pictures[:6:2], pictures[1:6:2]).mean()
  assert held.result() == pytest.approx(want, abs=1e-12) and held.pairs == 3
  with pytest.raises(UserError, match='48 x 64 pixels'):
    images.ms_ssim(np.zeros((1, 48, 64, 3)), np.zeros((1, 48, 64, 3)))
  with pytest.raises(UserError, match='24 pixels'):
    images.level_sizes(24)


# Networks.


@pytest.mark.parametrize('size', [20, 50])
def test_clean_resizing_is_pils(size, rng_seed):
  rng = np.random.default_rng(rng_seed)
  plane = rng.uniform(0, 255, (size, size)).astype(np.float32)
  want = np.asarray(Image.fromarray(plane).resize((31, 31), Image.Resampling.BICUBIC))
  how = inception.RESIZINGS['clean']
  ours = inception.resized(plane[None, :, :, None], how, 31)[0, :, :, 2]
  np.testing.assert_allclose(ours, want, atol=1e-3)
  for how in inception.RESIZINGS.values():
    np.testing.assert_allclose(how.matrix(size, 31).sum(1), 1, rtol=1e-12)


def inception_zeros(classes):
  """Weights of the right names and shapes, that hold zeros."""
  net = inception.InceptionV3(classes)
  image = jnp.zeros((1, 299, 299, 3))
  shapes = jax.eval_shape(net.init, jax.random.key(0), image)['params']
  weights = {'fc.weight': np.zeros((classes, 2048)), 'fc.bias': np.zeros(classes)}
  for name, like in shapes.items():
    if not name.startswith('fc.'):
      h, w, i, o = like['kernel'].shape
      weights[f'{name}.conv.weight'] = np.zeros((o, i, h, w))
      for part in ('bn.weight', 'bn.bias', 'bn.running_mean', 'bn.running_var'):
        weights[f'{name}.{part}'] = np.zeros(o)
  return weights


def test_wrong_weights_are_refused(tmp_path, monkeypatch):
  mesh = make_mesh(jax.devices()[:1])
  net = inception.fid_network()
  right = inception_zeros(1008)
  right['AuxLogits.fc.bias'] = np.zeros(3)
  inception.parameters(net, right, 'mine.npz')
  with pytest.raises(UserError, match=r'mine.npz: fc.bias .*\(1, 1000\)'):
    inception.parameters(net, inception_zeros(1000), 'mine.npz')
  with pytest.raises(UserError, match='no place for, such as extra'):
    inception.parameters(net, {**right, 'extra': np.zeros(1)}, 'mine.npz')
  np.savez(tmp_path / 'other.npz', a=np.zeros(2))
  with pytest.raises(
    UserError, match='Conv2d_1a_3x3.conv.weight is missing among its 1'
  ):
    inception.load(tmp_path / 'other.npz', mesh)
  (tmp_path / 'w-0123abcd.npz').write_bytes(b'')
  with pytest.raises(UserError, match='begins with e3b0c442, its name says 0123abcd'):
    inception.load(tmp_path / 'w-0123abcd.npz', mesh)
  (tmp_path / 'torn.npz').write_bytes(b'PK not a file')
  with pytest.raises(UserError, match='torn.npz is corrupted or not a file of weights'):
    inception.load(tmp_path / 'torn.npz', mesh)
  with pytest.raises(UserError, match='no such file'):
    inception.load(tmp_path / 'absent.pth', mesh)
  monkeypatch.delenv(inception.ENVIRONMENT, raising=False)
  with pytest.raises(UserError, match='--inception=FILE'):
    inception.load(None, mesh)
  with pytest.raises(UserError, match='allowed are torch, tf1'):
    inception.load(None, mesh, resizing='nearest')


def test_a_fingerprint_is_of_the_values():
  a = {'x': np.arange(6, dtype=np.float32), 'y': np.zeros(2)}
  assert feature_network.fingerprint(a) == feature_network.fingerprint(
    dict(reversed(a.items()))
  )
  assert feature_network.fingerprint(a) != feature_network.fingerprint(
    {**a, 'y': np.ones(2)}
  )
  assert feature_network.fingerprint(a) != feature_network.fingerprint(
    {**a, 'x': a['x'].reshape(2, 3)}
  )


def test_the_small_network(tmp_path, monkeypatch):
  monkeypatch.setattr(small_network, '_STEPS', 20)
  digits = data.load_dataset('digits', res=16, channels=1)
  found = [digits.examples[i] for i in range(600)]
  pictures = np.stack([x for x, _ in found])
  labels = np.array([y for _, y in found], np.int32)
  calls = []

  def sample():
    calls.append(1)
    return pictures, labels

  load = lambda folder, mesh: small_network.load(
    sample, 10, {'data': 'digits'}, folder, mesh
  )
  one, eight = make_mesh(jax.devices()[:1]), make_mesh()
  first = load(tmp_path, one)
  cached = load(tmp_path, eight)
  assert len(calls) == 1
  assert load(tmp_path / 'elsewhere', one).stamp == first.stamp == cached.stamp
  assert len(calls) == 2
  ours, logits = first.extract(pictures[:300])
  assert ours.shape == (300, small_network.DIM) and logits.shape == (300, 10)
  np.testing.assert_allclose(cached.extract(pictures[:300])[0], ours, atol=1e-5)
  # Worse pictures are further away.
  rng = np.random.default_rng(0)
  real = stats_of(ours)
  distances = []
  for level in (0, 30, 90):
    noisy = pictures[300:] + rng.normal(0, level, pictures[300:].shape)
    seen = first.extract(np.clip(noisy, 0, 255).astype(np.uint8))[0]
    distances.append(features.frechet_distance(real, stats_of(seen)))
  assert distances[0] < distances[1] < distances[2]


# Path length.


class Sphere:
  """A generator that draws z itself, one pixel an entry."""

  dim_z, n_classes = 6, 0

  def generate(self, g, z, labels):
    del labels
    return g['size'] * z[:, None, :, None]


def test_path_length_on_a_sphere():
  perceived = lambda a, b: jnp.square(a - b).sum((1, 2)).mean(-1)
  seeds = np.arange(203, dtype=np.uint32)
  (batch,) = ppl.draws(Sphere(), ppl.Path('z', 'full'), seeds, 203)
  z0, z1 = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in batch[:2])
  angles = np.arccos((z0 * z1).sum(1))
  want = ppl.trimmed_mean(6 * 4 * angles**2)
  for devices, size in ((1, 203), (8, 64)):
    mesh = make_mesh(jax.devices()[:devices])
    ours = ppl.path_length(
      Sphere(), {'size': 2.0}, ppl.Path('z', 'full'), perceived, seeds, mesh, size
    )
    # Float32 differences over 1e-4.
    assert ours == pytest.approx(want, rel=2e-2)
  with pytest.raises(UserError, match='this is a Sphere'):
    ppl.make_path_length(Sphere(), ppl.Path('w', 'end'), perceived, mesh)
  assert ppl.trimmed_mean(np.array([1e9, *np.ones(300), -1e9])) == 1
  with pytest.raises(UserError, match='seed 0 is not finite'):
    ppl.path_length(
      Sphere(), {'size': np.nan}, ppl.Path('z', 'full'), perceived, seeds, mesh, 64
    )


def test_path_length_in_w_is_that_of_the_synthesis():
  gan = StyleGAN(
    res=8, dim_z=8, dim_w=8, mapping_layers=2, mapping_width=8, g_widths=(8, 8, 8),
    d_widths=(8, 8, 8),
  )  # fmt: skip
  g, _ = jax.jit(gan.init)(jax.random.key(0))
  path, mesh = ppl.Path('w', 'end'), make_mesh()
  perceived = lambda a, b: jnp.square(a - b).mean((1, 2, 3))
  (batch,) = ppl.draws(gan, path, np.arange(8, dtype=np.uint32), 8)
  z0, z1, t, labels, _ = batch
  assert not t.any()
  compiled = ppl.make_path_length(gan, path, perceived, mesh, epsilon=1e-2)
  w0, w1 = gan.w(g, z0, labels), gan.w(g, z1, labels)
  a, b = (
    gan.synthesize(g, jnp.repeat(w[:, None], gan.layers(8), 1))
    for w in (w0, w0 + 0.01 * (w1 - w0))
  )
  want = np.square(np.asarray(a) - np.asarray(b)).mean((1, 2, 3)) / 1e-4
  np.testing.assert_allclose(compiled(g, z0, z1, t, labels), want, rtol=1e-3)


def lpips_arrays(rng):
  """LPIPS with two channels a layer, under LPIPS's own names."""
  arrays, before = {}, 3
  for stage, layers in enumerate(ppl._STAGES):
    for i in layers:
      kernel = rng.normal(size=(2, before, 3, 3)).astype(np.float32)
      arrays[f'net.slice{stage + 1}.{i}.weight'] = kernel
      arrays[f'net.slice{stage + 1}.{i}.bias'] = np.ones(2, np.float32)
      before = 2
    arrays[f'lin{stage}.model.1.weight'] = np.full((1, 2, 1, 1), 0.5, np.float32)
  return arrays


def test_lpips(rng_seed, tmp_path, monkeypatch):
  rng = np.random.default_rng(rng_seed)
  arrays = lpips_arrays(rng)
  np.savez(tmp_path / 'a.npz', **{k: v for k, v in arrays.items() if k[:3] != 'lin'})
  np.savez(tmp_path / 'b.npz', **{k: v for k, v in arrays.items() if k[:3] == 'lin'})
  net, stamp = ppl.load(f'{tmp_path}/a.npz,{tmp_path}/b.npz')
  assert stamp['network'] == 'lpips-vgg16'
  a, b = rng.uniform(-1, 1, (2, 3, 32, 32, 3)).astype(np.float32)
  compiled = jax.jit(ppl.distance)
  d = np.asarray(compiled(net, a, b))
  assert d.shape == (3,) and (d > 0).all()
  np.testing.assert_allclose(compiled(net, b, a), d, rtol=1e-5)
  np.testing.assert_array_equal(compiled(net, a, a), 0)
  # The weights of the stages are factors of its parts.
  twice = net._replace(weights=tuple(2 * w for w in net.weights))
  np.testing.assert_allclose(compiled(twice, a, b), 2 * d, rtol=1e-5)
  with pytest.raises(UserError, match='lin0.model.1.weight is missing'):
    ppl.load(f'{tmp_path}/a.npz')
  monkeypatch.delenv(ppl.ENVIRONMENT, raising=False)
  with pytest.raises(UserError, match='--lpips=FILES'):
    ppl.load(None)
