"""Config files, and the config.json of a workdir."""

import json
from pathlib import Path

import pytest

from configs import biggan_digits
from gan_jax import UserError
from gan_jax.config import load_config, load_raw_config, parse_config
from gan_jax.config.workdir import read_config

ROOT = Path(__file__).parents[2]


def test_a_config_is_loaded_from_its_file():
  expected = parse_config(biggan_digits.get_config('tiny').to_dict())
  assert load_config('configs/biggan_digits.py:tiny') == expected


@pytest.mark.parametrize(
  'name',
  ['biggan_digits:tiny', 'biggan_digits.py:tiny', 'configs/biggan_digits.py:tiny'],
)
def test_a_shipped_config_is_found_by_name_from_any_folder(name, tmp_path, monkeypatch):
  expected = load_config(str(ROOT / 'configs/biggan_digits.py:tiny'))
  (tmp_path / 'biggan_digits').mkdir()  # a folder is no config
  monkeypatch.chdir(tmp_path)
  assert load_config(name) == expected


def test_an_existing_file_takes_precedence(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('HOME', str(tmp_path))
  text = (ROOT / 'configs/biggan_digits.py').read_text()
  for name in ('biggan_emoji', 'biggan_emoji.py', 'a:b.py'):
    (tmp_path / name).write_text(text)
    assert load_config(name).data.name == 'digits'
    assert load_config(f'{name}:tiny') == load_config('biggan_digits:tiny')
    assert load_config(f'~/{name}').data.name == 'digits'


@pytest.mark.parametrize(
  'name, words',
  [
    ('configs/biggan_digit.py', 'did you mean biggan_digits?'),
    ('biggan_digit', 'did you mean biggan_digits?'),
    ('emoji', 'did you mean biggan_emoji?'),
    ('elsewhere/biggan_emoji.py', 'did you mean biggan_emoji?'),
    ('xyzzy', 'shipped are biggan_cifar10, '),
    ('biggan_digits:tini', "no variant 'tini'"),
    ('configs', 'configs is a folder, but a file is needed.'),
  ],
)
def test_an_unknown_config_suggests_a_shipped_one(name, words):
  with pytest.raises(UserError) as error:
    load_config(name)
  assert words in str(error.value) and f'--config={name}' in str(error.value)


@pytest.mark.parametrize(
  'text, variant, words',
  [
    ('def get_config(:', '', 'invalid syntax'),
    ('x = 1', '', 'no function get_config'),
    ('def get_config(): return 3', '', 'get_config returned 3, but a ConfigDict'),
    ('def get_config(): return {}', ':v', 'takes no variant'),
    ('def get_config(v): return {}', '', 'needs a variant'),
    ('import os\nos.environ["NO_SUCH_NAME"]', '', "line 2 failed with KeyError: 'NO_S"),
    ('def get_config():\n  return int("x")', '', 'line 2 failed with ValueError'),
    ('import no_such_module', '', 'line 1 failed with ModuleNotFoundError'),
    ('def get_config(): return {"seed": 3}', '', "no section 'seed'"),
    ('def get_config(): return {"model": {}}', '', 'model.family is None'),
  ],
)
def test_a_file_that_cannot_be_run_is_named_with_the_line(
  text, variant, words, tmp_path
):
  file = tmp_path / 'mine.py'
  file.write_text(text)
  with pytest.raises(UserError) as error:
    load_config(f'{file}{variant}')
  assert words in str(error.value)


def test_a_users_own_recipe_reads_the_environment(tmp_path, monkeypatch):
  text = (ROOT / 'configs/progan_emoji.py').read_text()
  file = tmp_path / 'recipe.py'
  file.write_text(text.replace("name='emoji'", "name=__import__('os').environ['DATA']"))
  with pytest.raises(
    UserError, match="recipe.py: line .* failed with KeyError: 'DATA'"
  ):
    load_config(str(file))
  monkeypatch.setenv('DATA', './photos')
  assert load_config(str(file)).data.name == './photos'
  overrides = [('score.every', '8'), ('data.name', 'cifar10')]
  read = load_config(str(file), overrides)
  assert (read.score.every, read.data.name) == (8, 'cifar10')


def test_the_config_of_a_run_is_a_config(tmp_path):
  config = load_config('biggan_digits:tiny')
  (tmp_path / 'config.json').write_text(json.dumps(config.to_dict()))
  assert load_config(str(tmp_path / 'config.json')) == config
  with pytest.raises(UserError, match=f'that of this run is {tmp_path}/config.json'):
    load_config(str(tmp_path))


def test_a_workdir_of_an_earlier_version_is_read(tmp_path):
  values = load_raw_config('configs/biggan_digits.py')
  values['log']['sheet_rows'] = values['log'].pop('grid_rows') + 1
  (tmp_path / 'config.json').write_text(json.dumps(values))
  assert read_config(tmp_path).log.grid_rows == values['log']['sheet_rows']
