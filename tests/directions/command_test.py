"""The command finds directions, shows them, and gan_jax.sample moves along them."""

import shutil

import numpy as np
import pytest
from PIL import Image

from gan_jax import UserError
from gan_jax.directions import __main__ as command
from gan_jax.directions.finding import factorize
from gan_jax.sampling.directions import (
  Direction,
  Directions,
  load_directions,
  save_directions,
)
from gan_jax.sampling.generator import TrainedGenerator
from gan_jax.sampling.latents import Latents, save_latents
from gan_jax.sampling.layout import GAP, LINE, enlargement
from gan_jax.sampling.options import SamplingOptions


def latents_of(generator, **options):
  return generator.plan(SamplingOptions(standing=0, **options)).latents


def test_directions_of_a_stylegan_move_w_in_their_layers(stylegan_run, tmp_path):
  out, common = tmp_path / 'd.npz', [f'--workdir={stylegan_run}', '--samples=200']
  flags = ['--n=2', '--layers=2-3', '--strengths=-1,1', '--seeds=4', f'--out={out}']
  command.main([*common, *flags])
  command.main(
    [*common, '--method=pca', '--n=1', '--name=first', '--strengths=0', f'--out={out}']
  )
  generator = TrainedGenerator(stylegan_run)
  found = load_directions(out, generator.identity)
  assert found.space == 'w' and list(found.by_name) == ['sefa0', 'sefa1', 'first0']
  kernels = generator.gan.latent_kernels(generator.variables)
  want = factorize([np.asarray(x) for x in kernels[2:]]).vectors
  np.testing.assert_allclose(found.by_name['sefa1'].vector, want[1], atol=1e-6)
  np.testing.assert_array_equal(found.by_name['sefa1'].layers, [0, 0, 1, 1])
  side = 8 * enlargement(8)
  with Image.open(tmp_path / 'directions_sefa.png') as image:
    assert image.height == 2 * (side + GAP) + GAP + LINE
    assert image.info['Description'].startswith('directions=sefa0,sefa1 strengths=-1,1')
  plain = latents_of(generator, seeds='4,5', psi=1)
  w = generator.map_latents(plain.values, np.ones((2, 1), np.float32))
  steps = dict(directions=str(out), direction='sefa1:2,first0')
  planned = generator.plan(SamplingOptions(seeds='4,5', psi=1, **steps))
  first = found.by_name['first0']
  shift = np.zeros((4, w.shape[1]))
  shift[2:] += 2 * found.by_name['sefa1'].vector
  shift += first.scale * first.vector
  assert planned.latents.space == 'w_plus'
  np.testing.assert_allclose(planned.latents.values, w[:, None] + shift, atol=1e-5)
  moved = np.concatenate(list(planned.images))
  again = generator.plan(SamplingOptions(), planned.latents)
  np.testing.assert_array_equal(np.concatenate(list(again.images)), moved)
  still = dict(directions=str(out), direction='sefa0:0')
  images = [
    np.concatenate(list(generator.plan(SamplingOptions(seeds='4,5', **x)).images))
    for x in ({}, still)
  ]
  np.testing.assert_array_equal(*images)
  assert (images[0] != moved).any()


def test_directions_of_a_biggan_move_z_in_its_chunks(digits_run, tmp_path):
  """What is found and where z goes; no image is computed."""
  generator, paths = TrainedGenerator(digits_run), [tmp_path / f'{x}.npz' for x in 'ab']
  n = generator.gan.dim_z
  for file, x in zip(paths, (-1, 3), strict=True):
    save_latents(file, Latents('z', np.full((2, n), x, np.float32)))

  def found(*flags):
    args = command.make_parser().parse_args([f'--workdir={digits_run}', *flags])
    command.check_arguments(args)
    layers = command.parse_layers(args.layers, generator)
    return layers, command.find(args, generator, np.flatnonzero(layers))

  layers, sefa = found('--n=1', '--layers=1')
  chunk = n // len(layers)
  used = np.flatnonzero(sefa.vectors[0])
  assert used.min() >= chunk and used.max() < 2 * chunk
  names = ','.join(map(str, paths))
  layers, centers = found('--method=centers', f'--latents={names}')
  np.testing.assert_allclose(centers.vectors[0] * centers.scales[0], np.full(n, 4))
  up = Direction('up', centers.vectors[0], layers, centers.scales[0])
  out = tmp_path / 'd.npz'
  save_directions(out, Directions('z', generator.identity, {'up': up}))
  options = dict(seeds='4', classes='3', psi=0.5)
  plain = latents_of(generator, **options).values
  steps = dict(directions=str(out), direction='up:-0.5')
  moved = latents_of(generator, **options, **steps).values
  np.testing.assert_allclose(0.5 * (moved - plain), -2, rtol=1e-5)
  with pytest.raises(UserError, match='the class is an input beside z'):
    found('--method=centers', '--classes=1,2')
  with pytest.raises(UserError, match=f'layers are 0-{len(layers) - 1}'):
    found('--layers=9')


def test_directions_of_another_model_are_refused(stylegan_run, digits_run, tmp_path):
  run = tmp_path / 'run'
  shutil.copytree(stylegan_run, run)
  command.main([f'--workdir={run}', '--n=1', '--strengths=0', '--seeds=0'])
  assert (run / 'directions.npz').exists() and (run / 'directions_sefa.png').exists()
  trained = TrainedGenerator(run)
  with pytest.raises(UserError, match="has no sefa1 .did you mean 'sefa0'"):
    trained.plan(SamplingOptions(direction='sefa1'))
  shutil.copyfile(run / 'directions.npz', tmp_path / 'd.npz')
  options = SamplingOptions(direction='sefa0', directions=f'{tmp_path}/d.npz')
  with pytest.raises(UserError, match='directions of another model, stylegan-8-'):
    TrainedGenerator(digits_run).plan(options)
  (tmp_path / 'd.npz').write_text('text')
  with pytest.raises(UserError, match='no .npz file of directions'):
    trained.plan(options)
