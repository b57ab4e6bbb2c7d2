"""Atomic writes and the cache folder."""

from pathlib import Path

import pytest

from gan_jax import UserError
from gan_jax.storage import files
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


def test_outputs_are_checked_before_the_work(tmp_path):
  (tmp_path / 'file').write_text('')
  files.check_output_folder(tmp_path / 'new' / 'deeper', '--out')
  files.check_output_file(tmp_path / 'new' / 'a.HTML', '--out', ('.html', '.htm'))
  files.check_output_file(Path('a.json'), '--json', ('.json',))
  for path, words in (
    (tmp_path, f'--out={tmp_path} is a folder: name a file, such as {tmp_path}/NAME'),
    (tmp_path / 'a.png', "ends in '.png', but a .html or .htm file is written: take "),
    (tmp_path / 'a', f'the name has no ending.*take {tmp_path}/a.html'),
    (tmp_path / 'file' / 'a.html', f'cannot be written: {tmp_path}/file is a file'),
    (Path('/proc/a.html'), '--out=/proc/a.html cannot be written: /proc takes no'),
  ):
    with pytest.raises(UserError, match=words):
      files.check_output_file(path, '--out', ('.html', '.htm'))
  for folder in (tmp_path / 'file', tmp_path / 'file' / 'x', Path('/proc/x')):
    with pytest.raises(UserError, match=f'--workdir={folder} cannot be written'):
      files.check_output_folder(folder, '--workdir')
  assert [p.name for p in tmp_path.iterdir()] == ['file']
