"""What a workdir says of its run: the identity of the model."""

import json

from gan_jax.config.workdir import model_identity
from tests.runs import tiny_config


def identity(folder, record=None, **changes):
  folder.mkdir(exist_ok=True)
  config = tiny_config('biggan_digits', **changes)
  (folder / 'config.json').write_text(json.dumps(config))
  (folder / 'run.json').write_text(json.dumps(record or {}))
  return model_identity(folder)


def test_a_model_keeps_its_identity_and_shares_it_with_no_other(tmp_path):
  run, other = tmp_path / 'a', tmp_path / 'b'
  data = {'dataset': {'images': 3, 'classes': ['x', 'y']}}
  plain = identity(run, data)
  assert plain.startswith('biggan-16-') and len(plain) == 22
  moved = {'data__name': 'elsewhere', 'log__keep': 7, 'train__images': 123}
  assert identity(other, data | {'started': 'later'}, **moved) == plain
  different = [
    identity(other),
    identity(other, {**data, 'weights': '0'}),
    identity(other, {'dataset': {'images': 4, 'classes': ['x', 'y']}}),
    identity(other, data, train__seed=1),
    identity(other, data, model__g_ch=12),
    identity(other, data, g_adam__beta2=0.9),
  ]
  assert len({plain, *different}) == 7


def test_new_keys_and_sections_change_no_identity(tmp_path):
  """Files of latents and directions must stay usable: only old keys are counted."""
  config = {
    'model': {'family': 'progan', 'res': 8, 'dim_z': 4},
    'schedule': {'resolutions': [8], 'batch': [4], 'stabilise': 9, 'fade': 9}
    | {'g_lr': [0.1], 'd_lr': [0.1]},
    'data': {'name': 'digits'},
    'train': {'images': 8},
    'log': {'metrics_every': 8, 'grid_every': 8, 'checkpoint_every': 8},
  }
  (tmp_path / 'config.json').write_text(json.dumps(config))
  assert model_identity(tmp_path) == 'progan-8-0886b737491b'
