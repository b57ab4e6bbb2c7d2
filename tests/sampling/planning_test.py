"""Planning: every pair of options gives the images it should, or one sentence."""

import itertools
import re

import numpy as np
import pytest

from gan_jax import UserError
from gan_jax.models.stylegan import StyleGAN
from gan_jax.sampling import image_io
from gan_jax.sampling.interface import reject_style_options
from gan_jax.sampling.options import SamplingOptions
from gan_jax.sampling.planning import GeneratorSpec, interpolate, plan_images, row_major

VALUES = [
  ('num', 3),
  ('grid', True),
  ('mix', '5-7'),
  ('interpolate', 'z'),
  ('interpolate', 'w'),
  ('interpolate', 'class'),
  ('seeds', '4,7'),
  ('classes', '2,ape'),
  ('only', 1),
  ('columns', 3),
  ('frames', 4),
  ('loop', True),
  ('mix_layers', 'coarse,2-3,coarse+middle'),
]
NAMES = ('ape', 'bee', 'cow')
SPECS = {
  'biggan': GeneratorSpec(),
  'biggan with classes': GeneratorSpec(3, NAMES),
  'stylegan': GeneratorSpec(style=StyleGAN(res=8), res=8),
  'stylegan with classes': GeneratorSpec(3, NAMES, StyleGAN(res=8, n_classes=3), 8),
}


def plan(spec, **values):
  options = SamplingOptions(**values)
  if spec.style is None:
    reject_style_options(options, 'is for a StyleGAN, which this model is not')
  return plan_images(options, spec)


def expected_images(spec, values):
  """The number of images, counted from what the help says of the options."""
  if 'only' in values:
    return 1
  n_seeds = values.get('num') or (2 if 'seeds' in values else 64)
  n_classes = 2 if 'classes' in values else spec.n_classes
  if values.get('grid'):
    return n_seeds * n_classes
  if 'mix' in values:  # by default one band of coarse and one of middle styles
    return n_seeds + 3 + (3 if 'mix_layers' in values else 2) * n_seeds * 3
  if 'interpolate' in values:
    n = n_classes if values['interpolate'] == 'class' else n_seeds
    steps, loop = values.get('frames', 8), values.get('loop', False)
    return n * steps if loop else (n - 1) * steps + 1
  return n_seeds


@pytest.mark.parametrize('name', SPECS)
def test_every_combination_works_or_is_refused_in_a_sentence(name):
  spec, n_plans, n_refused = SPECS[name], 0, 0
  for size in (0, 1, 2, 3):
    for chosen in itertools.combinations(VALUES, size):
      values = dict(chosen)
      if len(values) < size:  # one option with two values
        continue
      try:
        planned = plan(spec, **values)
      except UserError as error:
        sentence = str(error)
        assert re.fullmatch(r'--[^\n]+\.', sentence) and size, values
        assert any(f'--{option}' in sentence for option in values), sentence
        n_refused += 1
        continue
      n = expected_images(spec, values)
      seeds = planned.selected(planned.seeds)
      assert len(seeds) == n, values
      numbers = np.arange(n)
      images = np.stack([numbers // 200, numbers % 200, 0 * numbers], 1)
      grid = image_io.arrange(images.astype(np.uint8)[:, None, None], planned.cells)
      pixels = np.asarray(grid).reshape(-1, 3).astype(int)
      shown = {200 * x + y for x, y, blank in pixels if not blank}
      assert shown == set(numbers.tolist()), values
      if not planned.bands:
        latents = np.arange(len(planned.latent_seeds), dtype=np.float32)
        assert len(planned.selected(planned.frames_of(latents))) == n, values
      n_plans += 1
  assert n_plans > 20 and n_refused > 100, (n_plans, n_refused)


@pytest.mark.parametrize(
  'spec, values, words',
  [
    ('stylegan', {'seeds': '1', 'num': 2}, '--seeds and --num exclude each other'),
    ('stylegan', {'seeds': '1,9-7'}, '9-7 runs from high to low'),
    ('stylegan', {'mix': 'a'}, '--mix=a: give numbers'),
    ('biggan with classes', {'grid': True, 'interpolate': 'z'}, '--grid and --interp'),
    ('stylegan with classes', {'grid': True, 'mix': '1'}, '--grid and --mix exclude'),
    ('stylegan', {'mix': '1', 'columns': 2}, '--mix and --columns exclude'),
    ('stylegan', {'frames': 3}, '--frames needs --interpolate'),
    ('stylegan', {'loop': True}, '--loop needs --interpolate'),
    ('stylegan', {'mix_layers': 'coarse'}, '--mix_layers needs --mix'),
    ('stylegan', {'mix': '1', 'mix_layers': 'fine'}, 'a model of 8 pixels has no fine'),
    ('stylegan', {'mix': '1', 'mix_layers': 'corse'}, "did you mean 'coarse'"),
    ('stylegan', {'interpolate': 'class'}, '=class: this model has no classes'),
    ('biggan with classes', {'interpolate': 'z', 'seeds': '5,5'}, 'two seeds'),
    ('biggan with classes', {'interpolate': 'z', 'num': 1}, 'two seeds'),
    ('biggan with classes', {'interpolate': 'class', 'classes': '1'}, 'two classes'),
    (
      'biggan with classes',
      {'interpolate': 'class', 'seeds': '1-3'},
      'one seed, not 3',
    ),
    (
      'biggan with classes',
      {'num': 2, 'classes': '0-2'},
      r'=0-2: 3 classes are assigned in turn, and there are only 2 seeds',
    ),
    ('biggan', {'interpolate': 'z', 'frames': 10**9}, r'63000000001 images, and 1677'),
    ('biggan with classes', {'grid': True, 'num': 10**7}, '--grid: that is 30000000'),
    ('stylegan', {'mix': '0-9999', 'num': 10**4}, '--mix: that is 200020000 images'),
    ('biggan', {'num': 2, 'only': 2}, '--only=2: images are 0-1'),
    ('biggan', {'num': 2, 'only': -1}, '--only=-1: images are 0-1'),
  ],
)
def test_what_the_sentences_say(spec, values, words):
  with pytest.raises(UserError, match=words):
    plan(SPECS[spec], **values)


def test_the_rows_and_columns_of_a_mixing_grid():
  planned = plan(SPECS['stylegan'], seeds='8,9', mix='5-7', mix_layers='coarse,2')
  assert planned.latent_seeds == [8, 9, 5, 6, 7] and planned.bands == ([0, 1], [2])
  np.testing.assert_array_equal(
    planned.cells,
    [[-1, 2, 3, 4], [0, 5, 6, 7], [1, 8, 9, 10], [0, 11, 12, 13], [1, 14, 15, 16]],
  )
  np.testing.assert_array_equal(planned.seeds[5:], [8, 8, 8, 9, 9, 9] * 2)


@pytest.mark.parametrize('res, n_bands', [(4, 1), (8, 2), (16, 3), (1024, 3)])
def test_default_bands_are_those_that_the_resolution_has(res, n_bands):
  spec = GeneratorSpec(style=StyleGAN(res=res), res=res)
  assert len(plan(spec, mix='1').bands) == n_bands
  grown = GeneratorSpec(style=StyleGAN(res=1024), res=res)
  bands = plan(grown, mix='1').bands
  assert bands[0] == list(range(min(4, 2 * (res.bit_length() - 2))))
  assert max(map(max, bands)) < StyleGAN(res=res).layers(res)


def test_each_latent_of_a_path_is_shown_once():
  x = np.array([0, 4, 8], np.float32)
  np.testing.assert_array_equal(interpolate(x, 4), np.arange(9))
  closed = [0, 1, 2, 3, 4, 5, 6, 7, 8, 6, 4, 2]
  np.testing.assert_array_equal(interpolate(x, 4, closed=True), closed)
  spec = SPECS['biggan']
  for values in ({'seeds': '1,5,9', 'loop': True}, {'seeds': '1,5,9,1'}):
    path = plan(spec, interpolate='z', frames=4, **values)
    assert path.latent_seeds == [1, 5, 9] and path.closed
    np.testing.assert_array_equal(path.frames_of(x), closed)
  assert plan(spec, interpolate='z', frames=4, seeds='1,5').cells.shape == (1, 5)
  assert plan(spec, interpolate='z', frames=4, seeds='1,5,9').cells.shape == (3, 4)


def test_an_interpolation_of_classes_goes_through_all_or_the_given_ones():
  path = plan(SPECS['biggan with classes'], interpolate='class')
  assert path.latent_seeds == [0] * 3 and path.labels == [0, 1, 2]
  path = plan(
    SPECS['biggan with classes'], interpolate='class', seeds='6', classes='2,0'
  )
  assert path.latent_seeds == [6] * 2 and path.labels == [2, 0]


def test_cells_of_rows():
  np.testing.assert_array_equal(row_major(5, 3), [[0, 1, 2], [3, 4, -1]])
  np.testing.assert_array_equal(row_major(2, 3), [[0, 1]])
  np.testing.assert_array_equal(row_major(1, 3), [[0]])
