"""Config files, and the config.json of a workdir."""

import json

import pytest

from configs import biggan_digits
from gan_jax import UserError
from gan_jax.config import load_config, load_raw_config, parse_config
from gan_jax.config.workdir import read_config


def test_a_config_is_loaded_from_its_file():
  expected = parse_config(biggan_digits.get_config('tiny').to_dict())
  assert load_config('configs/biggan_digits.py:tiny') == expected
  with pytest.raises(UserError, match='did you mean configs/biggan_digits.py'):
    load_config('configs/biggan_digit.py')
  with pytest.raises(UserError, match="no variant 'tini'"):
    load_config('configs/biggan_digits.py:tini')


def test_a_workdir_of_an_earlier_version_names_the_new_key(tmp_path):
  values = load_raw_config('configs/biggan_digits.py')
  values['log']['sheet_rows'] = 2
  (tmp_path / 'config.json').write_text(json.dumps(values))
  with pytest.raises(UserError, match='config.json: .*sheet_rows is now log.grid_rows'):
    read_config(tmp_path)
