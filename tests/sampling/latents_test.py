"""Files of latents: what is written is read, and nothing else passes."""

import dataclasses
import zipfile

import numpy as np
import pytest

from gan_jax import UserError
from gan_jax.sampling.latents import (
  Latents,
  LatentShapes,
  check_latents,
  class_weights,
  load_latents,
  save_latents,
)

STYLEGAN = LatentShapes(6, 3, 5, 4, ((4, 4), (4, 4), (8, 8), (8, 8)), 'stylegan-8-0123')
BIGGAN = LatentShapes(6, 3, model='biggan-16-0123')
Z, W, W_PLUS = np.zeros((2, 6)), np.zeros((2, 5)), np.zeros((2, 4, 5))


def noise(n=2, sizes=(4, 4, 8, 8)):
  return {f'noise{i}': np.full((n, s, s, 1), i) for i, s in enumerate(sizes)}


def written(tmp_path, **arrays):
  path = tmp_path / 'a.npz'
  np.savez(path, **arrays)
  return path


@pytest.mark.parametrize('space, shape', [('z', (3, 6)), ('w_plus', (3, 4, 5))])
def test_what_is_saved_is_loaded(tmp_path, rng_seed, space, shape):
  rng = np.random.default_rng(rng_seed)
  latents = Latents(
    space,
    rng.normal(size=shape).astype(np.float32),
    labels=rng.random((3, 3), np.float32),
    psi=0.6,
    truncation=0.7,
    seeds=np.array([2**32 - 1, 0, 7], np.uint32),
    noise=tuple(rng.normal(size=(1, s, s, 1)).astype(np.float32) for s in (4, 4, 8, 8)),
    model=STYLEGAN.model,
  )
  path = tmp_path / 'new' / 'a.npz'
  save_latents(path, latents)
  loaded = load_latents(path)
  check_latents(path, loaded, STYLEGAN)
  for field in dataclasses.fields(Latents):
    a, b = (getattr(x, field.name) for x in (loaded, latents))
    if field.name == 'noise':
      assert len(a) == len(b) == 4
    for x, y in zip(a, b, strict=True) if field.name == 'noise' else [(a, b)]:
      np.testing.assert_array_equal(x, y, strict=isinstance(y, np.ndarray))


def test_a_file_needs_no_more_than_its_latents(tmp_path):
  path = written(tmp_path, z=Z, labels=np.array([2, 0], np.uint8))
  latents = load_latents(path)
  for shapes in (STYLEGAN, BIGGAN):
    check_latents(path, latents, shapes)
  assert (latents.psi, latents.truncation, latents.model) == (None, np.inf, '')
  assert latents.seeds is None and len(latents) == 2
  np.testing.assert_array_equal(class_weights(latents.labels, 3), np.eye(3)[[2, 0]])


@pytest.mark.parametrize(
  'arrays, sentence',
  [
    ({}, 'holds no arrays: .* exactly one of z, w, w_plus'),
    ({'images': Z}, 'holds images: '),
    ({'z': Z, 'w': W}, 'holds z and w: '),
    ({'z': Z[0]}, r'z has the shape \(6,\), and 2 dimensions'),
    ({'w_plus': W}, r'w_plus has the shape \(2, 5\), and 3'),
    ({'z': Z[:0]}, r'z has the shape \(0, 6\)'),
    ({'z': Z + np.nan}, '^[^(]*: z must hold finite numbers'),
    ({'z': np.array([['a', 'b']])}, 'z must hold finite numbers'),
    ({'z': Z, 'psi': np.ones(3)}, 'the latents cannot be read'),
    ({'z': Z, 'truncation': 0.0}, 'truncation=0 must be above 0'),
    ({'z': Z, 'labels': np.zeros(3, int)}, r'labels have the shape \(3,\), and 2 rows'),
    ({'z': Z, 'seeds': np.zeros(3, int)}, 'seeds must be 2 integers from 0'),
    ({'z': Z, 'seeds': np.array([0, 2**32])}, 'seeds must be 2 integers from 0'),
    ({'w': W, 'noise1': np.zeros((1, 4, 4, 1))}, 'noise0 is missing among noise1'),
    ({'w': W, 'noise0': np.zeros((3, 4, 4, 1))}, r'\(3, 4, 4, 1\), and \(2 or 1, h, w'),
  ],
)
def test_arrays_that_are_no_latents(tmp_path, arrays, sentence):
  path = written(tmp_path, **arrays)
  with pytest.raises(UserError, match=sentence):
    load_latents(path)


@pytest.mark.parametrize(
  'shapes, arrays, sentence',
  [
    (STYLEGAN, {'z': Z, 'model': 'x-8-0'}, 'latents of another model, x-8-0, and this'),
    (STYLEGAN, {'z': Z[:, 1:]}, 'z is 5 for each image, and this model takes 6'),
    (STYLEGAN, {'w': Z}, 'w is 6 for each image, and this model takes 5'),
    (STYLEGAN, {'w_plus': W_PLUS[:, 1:]}, 'w_plus is 3 x 5 .* takes 4 x 5'),
    (BIGGAN, {'w': W}, 'holds w, which is for a StyleGAN'),
    (BIGGAN, {'z': Z, 'labels': np.zeros((2, 4))}, 'rows of 4, .* takes rows of 3'),
    (BIGGAN, {'z': Z, 'labels': np.array([0, 3])}, 'integers from 0 to 2'),
    (BIGGAN, {'z': Z, 'labels': np.array([0.0, 1])}, 'integers from 0 to 2'),
    (BIGGAN, {'z': Z, 'psi': 0.0}, 'psi=0 must be above 0 in this model'),
    (BIGGAN, {'z': Z, **noise()}, 'holds noise, and this model has none'),
    (
      LatentShapes(6),
      {'z': Z, 'labels': np.array([0, 0])},
      'model has no classes',
    ),
    (
      STYLEGAN,
      {'w': W, **noise(1, (4, 4))},
      'sizes 4, 4, and this .* 4, 4, 8',
    ),
  ],
)
def test_latents_of_another_model(tmp_path, shapes, arrays, sentence):
  path = written(tmp_path, **arrays)
  with pytest.raises(UserError, match=sentence):
    check_latents(path, load_latents(path), shapes)


def test_files_that_are_no_npz(tmp_path):
  path = written(tmp_path, z=np.random.default_rng(0).normal(size=(99, 9)))
  whole = path.read_bytes()
  np.save(tmp_path / 'b.npy', Z)
  with zipfile.ZipFile(tmp_path / 'c.zip', 'w') as z:
    z.writestr('z.npy', 'text')
  contents = [b'', b'text', whole[:-99], whole[:999] + b'\xff' * 99 + whole[1098:]]
  contents += [(tmp_path / name).read_bytes() for name in ('b.npy', 'c.zip')]
  for content in contents:
    path.write_bytes(content)
    with pytest.raises(UserError, match='corrupted or no .npz file of latents'):
      load_latents(path)
  with pytest.raises(UserError, match='cannot be read: No such file'):
    load_latents(tmp_path / 'none.npz')
  with pytest.raises(UserError, match='cannot be read: Is a directory'):
    load_latents(tmp_path)
