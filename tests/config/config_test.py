"""The shipped configs: all build, the tiny ones train."""

import importlib
import json
from pathlib import Path

import jax
import pytest

from gan_jax.config import parse_config
from gan_jax.runtime.mesh import make_mesh
from gan_jax.training import trainer
from tests.runs import metric_lines

CONFIGS = sorted(
  path.stem for path in (Path(__file__).parents[2] / 'configs').glob('*.py')
)

# One per family is quick; `make test-fast` leaves out the others.
QUICK = ('biggan_digits', 'progan_emoji', 'stylegan_lsun')
# Their :tiny is that of the emoji but for the numbers of channels and classes.
ALIKE = ('progan_fashion', 'stylegan_fashion')
TINY = [
  name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
  for name in CONFIGS
  if name not in ALIKE
]


def config(name, variant=''):
  return importlib.import_module(f'configs.{name}').get_config(variant).to_dict()


@pytest.mark.parametrize('name', CONFIGS)
def test_every_config_builds_at_full_size(name):
  module = importlib.import_module(f'configs.{name}')
  variants = getattr(module, 'VARIANTS', ('',))
  for gan in {parse_config(config(name, variant)).gan for variant in variants}:
    g, d = jax.eval_shape(gan.init, jax.random.key(0))
    images = jax.eval_shape(
      gan.generate,
      g,
      jax.ShapeDtypeStruct((2, gan.dim_z), 'float32'),
      jax.ShapeDtypeStruct((2,), 'int32'),
    )
    assert images.shape == (2, gan.res, gan.res, gan.channels)
  with pytest.raises(ValueError, match='nonsense'):
    module.get_config('nonsense')


@pytest.mark.parametrize('name', TINY)
def test_every_tiny_config_trains_two_steps(name, tmp_path, monkeypatch):
  # On one device, as on a laptop: the step compiles faster than for eight.
  one_device = lambda devices=None: make_mesh(devices or jax.devices()[:1])
  monkeypatch.setattr(trainer, 'make_mesh', one_device)
  parsed = parse_config(config(name, 'tiny'))
  state = trainer.Trainer(parsed, tmp_path).run()
  assert int(state.step) == len(metric_lines(tmp_path)) == 2
  assert len(list((tmp_path / 'samples').glob('*.png'))) == len(parsed.stages)


@pytest.mark.parametrize('name', CONFIGS)
def test_a_config_written_in_full_is_the_same_config(name):
  parsed = parse_config(config(name))
  assert parse_config(json.loads(json.dumps(parsed.to_dict()))) == parsed
