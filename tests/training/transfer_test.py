"""Runs that begin with the weights of others."""

import json

import jax
import numpy as np
import pytest

from gan_jax import UserError
from gan_jax.config import parse_config
from gan_jax.models.base import variable_shapes
from gan_jax.runtime.mesh import make_mesh
from gan_jax.storage.checkpoint import Checkpointer
from gan_jax.storage.nested import flatten
from gan_jax.training.train_state import TrainState
from gan_jax.training.transfer import check_start, open_source
from tests.runs import tiny_config, train

BIGGAN = dict(model__n_classes=10, model__g_ch=1, model__d_ch=1)
GROWING = dict(
  model__res=8, schedule__resolutions=(8,), schedule__batch=(4,),
  schedule__g_lr=(1e-3,), schedule__d_lr=(1e-3,),
)  # fmt: skip
LARGER = dict(
  model__res=16, schedule__resolutions=(8, 16), model__g_widths=(4,) * 4,
  model__d_widths=(4,) * 4,
)  # fmt: skip
LARGER_BIGGAN = dict(  # chunks of z are as long as before
  model__res=32, data__upscale=True, model__dim_z=64, model__g_widths=(4, 2, 1, 1),
  model__d_widths=(1, 2, 4, 4),
)  # fmt: skip
CONFIGS = {
  'biggan': ('biggan_digits', BIGGAN),
  'progan': ('progan_lsun', GROWING),
  'stylegan': ('stylegan_lsun', GROWING),
}


def config_of(family, **changes):
  name, fixed = CONFIGS[family]
  return parse_config(tiny_config(name, **fixed | changes))


def numbers(gan, seed):
  """A state of random numbers, without what no run takes from another."""
  rng = np.random.default_rng(seed)
  draw = lambda tree: jax.tree.map(
    lambda x: rng.normal(size=x.shape).astype(x.dtype), tree
  )
  g, d = variable_shapes(gan)
  zero = np.zeros((), np.int32)
  return TrainState(zero, zero, draw(g), draw(d), zero, zero, draw(g))


@pytest.fixture(scope='module')
def sources(tmp_path_factory):
  """A run of each family, of random numbers, and its state."""
  found = {}
  for family in CONFIGS:
    config, folder = config_of(family), tmp_path_factory.mktemp(family)
    state = numbers(config.gan, 1)
    checkpointer = Checkpointer(folder)
    checkpointer.save(3, state)
    checkpointer.close()
    (folder / 'config.json').write_text(json.dumps(config.to_dict()))
    names = [f'class {i}' for i in range(10)]
    (folder / 'run.json').write_text(json.dumps({'dataset': {'classes': names}}))
    found[family] = folder, state
  return found


def begun(config):
  """The first state, whose new arrays are other random numbers, and the source."""
  fresh = numbers(config.gan, 2)
  with open_source(config) as source:
    state = source.start(fresh, make_mesh(jax.devices()[:2]))
    return jax.tree.map(np.asarray, state), fresh, source.describe()


def leaves(state):
  trees = {name: getattr(state, name) for name in ('g', 'd', 'ema')}
  return {path: np.asarray(x) for path, x in flatten(trees, '/').items()}


@pytest.mark.parametrize('family', CONFIGS)
def test_the_same_model_takes_everything(family, sources):
  folder, old = sources[family]
  state, _, text = begun(config_of(family, finetune__source=str(folder)))
  for path, x in leaves(state).items():
    np.testing.assert_array_equal(x, leaves(old)[path], path)
  assert f'weights of {folder}, checkpoint 3' in text
  assert ' 0 skipped, 0 re-initialised' in text


@pytest.mark.parametrize('family', CONFIGS)
def test_another_resolution_takes_what_fits(family, sources):
  folder, old = sources[family]
  changes = dict(finetune__source=str(folder), finetune__partial=True)
  larger = LARGER_BIGGAN if family == 'biggan' else LARGER
  state, fresh, text = begun(config_of(family, **changes, **larger))
  before, new, drawn = leaves(old), leaves(state), leaves(fresh)
  taken = 0
  for path, x in new.items():
    matches = path in before and before[path].shape == x.shape
    np.testing.assert_array_equal(x, before[path] if matches else drawn[path], path)
    taken += matches
  assert 0 < taken < len(new)
  if family == 'stylegan':
    assert all(path in before for path in new if 'mapping' in path)
    assert 're-initialised g/params/synthesis/conv16/kernel' in text
  if family != 'biggan':  # all that the lower resolutions use
    assert {path for path in before if path not in new} == set()


MIXED = dict(
  model__n_classes=3, finetune__classes=('2', "3*class 4+class 5", '0-9')
)  # fmt: skip
ROWS = np.zeros((3, 10), np.float32)
ROWS[0, 2], ROWS[1, 4:6], ROWS[2] = 1, (0.75, 0.25), 0.1


def test_new_classes_are_mixtures_of_old_ones(sources):
  folder, old = sources['biggan']
  config = config_of('biggan', **BIGGAN | MIXED, finetune__source=str(folder))
  state, _, text = begun(config)
  before, new = leaves(old), leaves(state)
  assert ' 0 skipped, 0 re-initialised' in text
  mixed = {path for path in new if new[path].shape != before[path].shape}
  assert {path.partition('/')[0] for path in mixed} == {'g', 'd', 'ema'}
  for path in mixed:
    expected = before[path] @ ROWS.T if '/spectral/' in path else ROWS @ before[path]
    np.testing.assert_allclose(new[path], expected, rtol=1e-5, atol=1e-6)
  for path in new.keys() - mixed:
    np.testing.assert_array_equal(new[path], before[path], path)


@pytest.mark.parametrize(
  ('family', 'changes', 'sentence'),
  [
    ('biggan', {}, 'finetune.source: {none} is not the folder of a run'),
    (
      'biggan',
      dict(finetune__step=5),
      'finetune.source: {} has no checkpoint 5: ',
    ),
    (
      'biggan',
      dict(model__n_classes=3),
      'finetune.source={} does not match the model (3 of ',
    ),
    (
      'biggan',
      dict(model__n_classes=3),
      'mix its classes by finetune.classes, and ',
    ),
    (
      'stylegan',
      LARGER,
      'such as g/params/synthesis/conv16/kernel: - -> 3x3x4x4): set finetune.partial',
    ),
    (
      'stylegan',
      LARGER | dict(finetune__partial=True, finetune__freeze_d=('1',)),
      'finetune.freeze_d freezes what finetune.source={} does not have in this shape, '
      'd/params/conv16/bias: freeze only what is taken from it.',
    ),
    (
      'stylegan',
      dict(finetune__freeze_g=('maping',)),
      "finetune.freeze_g names 'maping', which no parameter of G matches (did you mean",
    ),
    (
      'stylegan',
      dict(finetune__classes=('0',)),
      'finetune.classes is 0, but model.n_classes is 0: leave it out',
    ),
    (
      'biggan',
      dict(model__n_classes=3, finetune__classes=('0', '1', 'clas 4')),
      "finetune.classes: clas 4: no class is named 'clas 4' (did you mean 'class 4'?)",
    ),
  ],
)
def test_mistakes_end_before_anything_is_written(
  family, changes, sentence, sources, tmp_path
):
  folder, _ = sources[family]
  source = tmp_path / 'none' if '{none}' in sentence else folder
  config = config_of(family, **changes, finetune__source=str(source))
  with pytest.raises(UserError) as error:
    check_start(config, tmp_path / 'new')
  assert sentence.format(source, none=source) in str(error.value)
  assert not (tmp_path / 'new').exists()


def test_a_run_of_another_family_is_refused(sources):
  folder, _ = sources['biggan']
  with pytest.raises(UserError, match='shares no parameter of G with this model, a '):
    begun(config_of('stylegan', finetune__source=str(folder), finetune__partial=True))


@pytest.mark.parametrize(
  ('settings', 'sentence'),
  [
    (dict(partial=True), 'finetune.partial is True, but finetune.source is empty'),
    (dict(classes=('1',)), "finetune.classes is ('1',), but finetune.source is empty"),
    (dict(source='gs:/x'), 'finetune.source=gs:/x: two slashes follow gs:'),
    (dict(freeze='1'), "finetune has no key 'freeze' (did you mean 'freeze_g'?)"),
  ],
)
def test_settings_that_contradict(settings, sentence):
  with pytest.raises(UserError) as error:
    parse_config(tiny_config() | {'finetune': settings})
  assert sentence in str(error.value)


def test_frozen_weights_must_come_from_somewhere(tmp_path):
  config = config_of('progan', finetune__freeze_d=('conv8',))
  with pytest.raises(UserError, match='freeze_d freezes conv8/bias, and these weights'):
    check_start(config, tmp_path)
  (tmp_path / 'checkpoints' / '4').mkdir(parents=True)
  check_start(config, tmp_path)  # a run that goes on


@pytest.mark.slow
def test_a_run_begins_with_another_and_keeps_what_is_frozen(stylegan_run, tmp_path):
  changes = dict(finetune__source=str(stylegan_run), model__truncated_layers=2)
  frozen = dict(finetune__freeze_d=('1',), finetune__freeze_g=('mapping',))
  raw = tiny_config('stylegan_lsun', **changes, **frozen)
  state = leaves(train(raw, tmp_path))
  checkpointer = Checkpointer(stylegan_run, read_only=True)
  shapes = {name: checkpointer.shapes(2, name) for name in 'gd'}
  before = flatten(checkpointer.restore_part(checkpointer.newest(), shapes), '/')
  checkpointer.close()
  kept = {p for p, x in before.items() if np.array_equal(x, state[p])}
  assert all(p in kept for p in before if p.startswith('g/params/mapping'))
  assert not any(p in kept for p in before if '/conv4/kernel' in p)
  resumed = train(raw | {'train': raw['train'] | {'images': 32}}, tmp_path)
  assert np.array_equal(
    leaves(resumed)['g/params/mapping/dense0/kernel'],
    before['g/params/mapping/dense0/kernel'],
  )
