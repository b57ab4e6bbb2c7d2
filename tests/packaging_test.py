"""What setup.cfg puts into a wheel: packages, their data, configs, the command."""

import configparser
import fnmatch
import importlib
from pathlib import Path

from gan_jax.config.files import shipped_configs

ROOT = Path(__file__).parents[1]


def settings():
  parser = configparser.ConfigParser()
  parser.read(ROOT / 'setup.cfg')
  return parser


def test_every_package_and_the_configs_are_in_the_wheel():
  options = settings()['options']
  packages = {
    '.'.join(file.parent.relative_to(ROOT).parts)
    for file in (ROOT / 'gan_jax').rglob('__init__.py')
  }
  assert set(options['packages'].split()) == packages | {'gan_jax.configs'}
  assert options['package_dir'].split() == ['gan_jax.configs', '=', 'configs']


def test_every_file_that_is_no_module_is_declared_as_data():
  patterns = settings()['options.package_data']['gan_jax'].replace(' ', '').split(',')
  files = [
    str(path.relative_to(ROOT / 'gan_jax'))
    for path in (ROOT / 'gan_jax').rglob('*')
    if path.is_file() and path.suffix not in ('.py', '.pyc')
  ]
  assert len(files) > 8
  for file in files:
    matching = [p for p in patterns if p.count('/') == file.count('/')]
    assert any(fnmatch.fnmatch(file, pattern) for pattern in matching), file


def test_the_console_command_exists():
  scripts = settings()['options.entry_points']['console_scripts']
  name, module, function = scripts.strip().replace(' = ', ':').split(':')
  assert name == 'gan_jax'
  assert callable(getattr(importlib.import_module(module), function))


def test_the_configs_of_a_wheel_take_precedence_over_a_neighbouring_package(tmp_path):
  for folder, name in (('configs', 'other'), ('gan_jax/configs', 'shipped')):
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / f'{name}.py').touch()
  assert list(shipped_configs(tmp_path / 'gan_jax')) == ['shipped']
  assert list(shipped_configs()) == sorted(p.stem for p in ROOT.glob('configs/*.py'))
