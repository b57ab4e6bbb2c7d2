"""The warp of ADA and its wavelet matrices."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.models.augmentation import geometry, wavelets
from tests.gradients import penalty, scalar


def images_of(seed, h, w, b=2):
  return np.random.default_rng(seed).normal(size=(b, h, w, 3)).astype(np.float32)


@pytest.mark.parametrize('n', [4, 8, 9, 16, 33])
def test_the_rows_of_a_reflected_signal_repeat(n, rng_seed):
  """Against upsampling the whole padded signal, row by row."""
  x = np.random.default_rng(rng_seed).normal(size=n)
  padded = np.pad(x, n - 1, mode='reflect')
  zeros = np.zeros(2 * len(padded) - 1)
  zeros[::2] = padded
  whole = 2 * np.convolve(zeros, wavelets.lowpass())[5:]
  whole = np.concatenate([[0.0], whole[: 2 * len(padded)], [0.0]])
  table = wavelets.upsampling(n, n - 1, n - 1)
  position = np.arange(len(whole) - 1.0)
  with jax.enable_x64(True):
    row = np.asarray(table.row(position)).astype(int)
  assert len(whole) == table.length
  np.testing.assert_allclose((table.matrix @ x)[row], whole[:-1], atol=1e-12)
  np.testing.assert_allclose((table.matrix @ x)[row + 1], whole[1:], atol=1e-12)
  if n > 8:  # fewer than six rows for each pixel
    assert len(table.matrix) <= 4 * n + 20


def test_the_bands_sum_to_the_image():
  x = np.random.default_rng(0).normal(size=30)
  np.testing.assert_allclose(wavelets.band_filters(30).sum(0) @ x, x, atol=1e-6)


@pytest.mark.parametrize(('h', 'w'), [(4, 4), (8, 8), (12, 20), (32, 32)])
def test_whole_pixels_move_exactly(h, w, rng_seed):
  x = images_of(rng_seed, h, w)
  shift = jnp.asarray([0.0, 2.0])
  inverse = geometry.translation(-shift, shift)
  y = np.asarray(geometry.warp(x, inverse))
  np.testing.assert_allclose(y[0], x[0], atol=1e-5 if h > 4 else 0.1)
  if h > 8:  # right by two, up by two; what comes in is reflected
    moved = np.pad(x[1], ((0, 2), (2, 0), (0, 0)), mode='reflect')[2:, :-2]
    np.testing.assert_allclose(y[1], moved, atol=1e-5)


def test_a_quarter_turn_is_rot90():
  smooth = np.linspace(-1, 1, 24)[:, None] * np.linspace(0.5, 1, 24)[None] ** 2
  x = smooth[None, :, :, None].astype(np.float32)
  y = geometry.warp(x, geometry.rotation(jnp.asarray([np.pi / 2])))
  turned = np.rot90(x[0])
  np.testing.assert_allclose(y[0][4:-4, 4:-4], turned[4:-4, 4:-4], atol=5e-3)


def affine(seed, b):
  """The identity, a flip with a stretch, two quarter turns, and free maps."""
  matrix = np.random.default_rng(seed).normal(size=(b, 3, 3))
  matrix[:, :2, 2] *= 3
  matrix[:, 2] = 0, 0, 1
  matrix[0, :2, :2] = np.eye(2)
  matrix[1, :2, :2] = np.diag([-0.8, 1.3])
  tiny = np.cos(np.pi / 2)  # not 0
  matrix[2, :2, :2] = [[tiny, -1], [1, tiny]]
  matrix[3, :2, :2] = [[tiny, 1.2], [-0.7, tiny]]
  return jnp.asarray(matrix)


@pytest.fixture(params=['cpu', 'tpu'])
def form(request, monkeypatch):
  """The form of a platform; groups are smaller than the batches of the tests."""
  monkeypatch.setattr(geometry, 'platform', lambda: request.param)
  monkeypatch.setattr(geometry, 'PIXELS_AT_ONCE', 5 * 12 * 12)
  return request.param


@pytest.mark.parametrize(('h', 'w', 'swapped'), [(12, 12, 2), (8, 11, 0)])
@pytest.mark.usefixtures('form')
def test_all_forms_equal_sampling_point_by_point(h, w, swapped, rng_seed):
  """Images, gradients and second derivatives, for all kinds of maps in one batch."""
  with jax.enable_x64(True):
    b = 4 + 2 * geometry.IMAGES_AT_ONCE
    x = np.random.default_rng(rng_seed).normal(size=(b, h, w, 2))
    inverse = affine(rng_seed, b)
    margins = geometry.largest_margins(h, w)
    upright, turned = geometry.find_kinds(inverse, h, w, margins)
    assert int(upright.sum()) == 2 and int(turned.sum()) == swapped
    mixed = lambda x: geometry.warp(x, inverse)
    points = lambda x: geometry.warp_points(x, inverse, margins)
    once, twice = (lambda f, of=of: jax.grad(of(f)) for of in (scalar, penalty))
    for of in (lambda f: f, once, twice):
      ours, theirs = (np.asarray(jax.jit(of(f))(x)) for f in (mixed, points))
      np.testing.assert_allclose(ours, theirs, atol=1e-12 * max(1, abs(theirs).max()))


@pytest.mark.parametrize('turned', [False, True])
def test_an_oblong_image_is_transformed_as_the_square_around_it(turned, rng_seed):
  """All transforms are in pixels: the square is the image with its reflections."""
  rng = np.random.default_rng(rng_seed)
  x, edge = rng.normal(size=(3, 12, 32, 2)), 10
  square = np.pad(x, ((0, 0), (edge, edge), (0, 0), (0, 0)), mode='reflect')
  moved = geometry.translation(*jnp.asarray(rng.uniform(-0.3, 0.3, (2, 3))))
  angles = jnp.asarray(rng.uniform(-0.1, 0.1, 3))
  scaled = geometry.scaling(*jnp.asarray(rng.uniform(0.9, 1.05, (2, 3))))
  inverse = geometry.compose(geometry.compose(moved, geometry.rotation(angles)), scaled)
  with jax.enable_x64(True):
    inverse = jnp.asarray(np.asarray(inverse, np.float64))
    want = np.asarray(geometry.warp(jnp.asarray(square), inverse))[:, edge:-edge]
    if turned:  # rows and columns exchanged
      x, want = x.swapaxes(1, 2), want.swapaxes(1, 2)
      exchange = jnp.asarray([[0.0, 1, 0], [1, 0, 0], [0, 0, 1]])
      inverse = exchange @ inverse @ exchange
    got = np.asarray(geometry.warp(jnp.asarray(x), inverse))
  np.testing.assert_allclose(got, want, atol=1e-9)


@pytest.mark.usefixtures('form')
def test_images_that_are_not_chosen_stay_as_they_are():
  x, chosen = images_of(0, 12, 12, b=11), jnp.arange(11) % 4 == 3
  f = lambda x: geometry.warp_chosen(
    x, affine(0, 11), chosen, geometry.largest_margins(12, 12)
  )
  y, g = f(x), jax.grad(lambda x: f(x).sum())(x)
  assert ((y == x).all((1, 2, 3)) == ~chosen).all()
  assert ((g == 1).all((1, 2, 3)) == ~chosen).all()


def test_a_tpu_reads_no_single_pixels(monkeypatch):
  """Neither gathers nor scatters of more rows than there are images."""
  monkeypatch.setattr(geometry, 'platform', lambda: 'tpu')
  x, inverse = images_of(0, 12, 12, b=6), affine(0, 6)
  warp = lambda x: geometry.warp(x, inverse)
  for f in (warp, lambda x: jax.linear_transpose(warp, x)(x)[0]):
    reads = re.findall(
      r'"stablehlo\.(?:gather|scatter)".*?\(tensor<[^>]*>, tensor<([\dx]+)xi32>',
      jax.jit(f).lower(x).as_text(),
      re.DOTALL,
    )
    assert reads and max(math.prod(map(int, r.split('x'))) for r in reads) <= 6


def test_the_transpose_of_sampling(rng_seed):
  """Gradients of all orders, against indexing that JAX differentiates itself."""
  x = images_of(rng_seed, 6, 5)
  rng = np.random.default_rng(rng_seed)
  first = rng.integers(0, 2 * 6 * 5 - 6, (2, 3, 7))  # and the next row and column
  cells = geometry.Cells(
    jnp.asarray(first, jnp.int32),
    *(jnp.asarray(rng.uniform(size=(2, 3, 7)), jnp.float32) for _ in range(2)),
  )
  ours = lambda x: geometry.sample(x, cells)

  def plain(x):
    flat, right, down = x.reshape(-1, 3), cells.right[..., None], cells.down[..., None]
    row = lambda at: flat[at] * (1 - right) + flat[at + 1] * right
    return row(first) * (1 - down) + row(first + 5) * down

  for f in (scalar, lambda f: lambda x: jnp.sum(jax.grad(scalar(f))(x) ** 2)):
    np.testing.assert_allclose(f(ours)(x), f(plain)(x), rtol=1e-4)
    np.testing.assert_allclose(
      jax.grad(f(ours))(x), jax.grad(f(plain))(x), rtol=1e-3, atol=1e-3
    )
