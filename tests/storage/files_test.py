"""Atomic writes and the cache folder."""

from pathlib import Path

import pytest

from gan_jax.storage.files import atomic_path, cache_folder, write_json


def test_an_error_keeps_the_old_file(tmp_path):
  path = tmp_path / 'a.json'
  write_json(path, {'a': 1})
  with pytest.raises(RuntimeError), atomic_path(path) as part:
    part.write_text('half')
    raise RuntimeError
  assert path.read_text() == '{\n  "a": 1\n}\n'
  assert list(tmp_path.iterdir()) == [path]


def test_the_environment_moves_the_cache_folder(monkeypatch, tmp_path):
  monkeypatch.delenv('GAN_JAX_CACHE', raising=False)
  assert cache_folder('plan') == Path.home() / '.cache' / 'gan_jax' / 'plan'
  monkeypatch.setenv('GAN_JAX_CACHE', str(tmp_path))
  assert cache_folder('plan') == tmp_path / 'plan' and cache_folder() == tmp_path
