"""A run on images with label vectors: trained, scored and sampled."""

import json

import jax
import numpy as np
import pytest

from gan_jax import UserError, evaluate, load
from gan_jax.config import parse_config
from gan_jax.evaluation import results
from gan_jax.evaluation.metrics import small_network
from gan_jax.plan.stage_cost import step_inputs
from gan_jax.runtime.mesh import make_mesh
from gan_jax.training.compile_step import compile_train_step
from gan_jax.training.stages import step_config
from tests.data.images import encode, random_image, write_files
from tests.runs import tiny_config, train

N = 16


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp('vectors')
  files = {f'{i}.png': encode(random_image(rng, 8, 8, 3)) for i in range(N)}
  labels = [[name, rng.normal(0, 1, 3).round(3).tolist()] for name in files]
  write_files(folder, files | {'dataset.json': json.dumps({'labels': labels}).encode()})
  return folder


def config(name, folder, **changes):
  log = dict(log__grid_rows=2, log__grid_columns=2, log__checkpoint_every=8)
  data = dict(data__name=str(folder), data__upscale=True, model__n_classes=3)
  return tiny_config(name, **log | data | changes)


def test_a_run_on_label_vectors(folder, tmp_path, monkeypatch):
  monkeypatch.setattr(small_network, 'TRAINING_STEPS', 2)
  monkeypatch.setenv('GAN_JAX_CACHE', str(tmp_path / 'cache'))
  state = train(
    config('progan_lsun', folder, schedule__resolutions=(8,)), tmp_path / 'run'
  )
  assert int(state.step) == 2
  assert list((tmp_path / 'run' / 'samples').glob('*.png'))
  evaluate.main([f'--workdir={tmp_path}/run', '--metrics=kid_small', '--num=16'])
  assert 'kid_small' in results.latest_scores(tmp_path / 'run')
  with pytest.raises(UserError, match='accuracy_small needs images of classes'):
    evaluate.main([f'--workdir={tmp_path}/run', '--metrics=accuracy_small'])
  generator = load(tmp_path / 'run')
  rows = np.array([[0.5, -1.0, 2.0], [0.0, 0.0, 1.0]], np.float32)
  images = generator.sample(range(4), labels=rows, noise='own')
  assert images.shape == (4, 8, 8, 3)
  np.testing.assert_array_equal(images[1::2], generator.sample([1, 3], labels=rows[1:]))
  assert (images[1::2] != generator.sample([1, 3], labels=-rows[1:])).any()


@pytest.mark.parametrize('name', ['biggan_emoji', 'stylegan_lsun'])
def test_the_steps_of_other_families_take_label_vectors(folder, name):
  changes = dict(model__fake_labels='data', model__n_classes=3)
  parsed = parse_config(config(name, folder, **changes))
  mesh, stage = make_mesh(jax.devices()[:2]), parsed.stages[-1]
  inputs = step_inputs(parsed, stage, mesh)
  labels = inputs.batch.labels
  labels = jax.ShapeDtypeStruct(
    (*labels.shape, 3), np.float32, sharding=labels.sharding
  )
  inputs = inputs._replace(batch=inputs.batch._replace(labels=labels))
  step = compile_train_step(step_config(parsed, stage, mesh.size), mesh)
  text = step.lower(*inputs).as_text()
  assert 'all_gather' in text and f'x{labels.shape[2]}x3xf32' in text


def test_a_biggan_takes_the_labels_of_its_fakes_from_the_data(folder, tmp_path):
  with pytest.raises(UserError, match='set model.fake_labels=data'):
    train(config('biggan_emoji', folder), tmp_path / 'run')
