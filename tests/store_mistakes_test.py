"""Stores that a command cannot use: exit code 2 and one sentence, before a compile."""

import importlib
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

from gan_jax import sample
from gan_jax.report.__main__ import main as report
from gan_jax.runtime.errors import run_command
from gan_jax.storage.store import Store
from gan_jax.storage.working_copy import open_workdir, working_copy
from tests.mistakes_test import MODULES
from tests.storage.stores import read_only

READING = {
  'sample': '--workdir=URL --out=x.png',
  'report': 'URL --out=page.html',
  'explore': '--workdir=URL --port=18098',
}
WRITING = {
  'main': '--config=biggan_digits:tiny --workdir=URL',
  'evaluate': '--workdir=URL --metrics=swd',
  'importers': 'weights.npz --workdir=URL',
}
COMMANDS = [*READING.items(), *WRITING.items()]
BOTH = pytest.mark.parametrize('command, line', COMMANDS)


@pytest.fixture
def refused(tmp_path, monkeypatch, capfd):
  """Runs a command, which must end with 2; returns its one sentence."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(os, '_exit', sys.exit)  # how training leaves

  def run(command, line):
    if command == 'explore':
      pytest.importorskip('nicegui')
    (tmp_path / 'weights.npz').write_bytes(b'')
    monkeypatch.setattr(sys, 'argv', [command, *line.split()])
    with pytest.raises(SystemExit) as exit:
      run_command(importlib.import_module(MODULES[command]).main)
    err = capfd.readouterr().err
    assert exit.value.code == 2, err
    assert err.startswith('error: ') and err.count('\n') == 1, err
    assert [path.name for path in tmp_path.iterdir()] == ['weights.npz']
    return err

  return run


@pytest.mark.stores
@BOTH
def test_missing_credentials(scheme_without_login, refused, command, line):
  sentence = refused(command, line.replace('URL', f'{scheme_without_login}://bucket/x'))
  assert re.search(r'no valid credentials \(.*(gcloud|aws) ', sentence)


@BOTH
def test_a_bucket_that_does_not_exist(url, refused, command, line):
  sentence = refused(command, line.replace('URL', url.replace('bucket', 'no-bucket')))
  assert "there is no bucket 'no-bucket'" in sentence


@pytest.mark.parametrize('command, line', WRITING.items())
def test_no_permission_to_write(url, gate, refused, command, line):
  gate.refusal = read_only
  assert 'no permission' in refused(command, line.replace('URL', url))
  assert Store(url).list() == {}


def test_a_bucket_that_may_only_be_read_is_enough_for_sampling_and_a_report(
  url, gate, digits_run, tmp_path
):
  with open_workdir(url, write=True) as folder:
    shutil.copytree(digits_run, folder, dirs_exist_ok=True)
    for step in (folder / 'checkpoints').iterdir():
      working_copy(folder).commit(int(step.name))
  gate.refusal = read_only
  sample.main([f'--workdir={url}', '--seeds=0-3', f'--out={tmp_path}/grid.png'])
  Image.open(tmp_path / 'grid.png').verify()
  report([url, f'--out={tmp_path}/page.html'])
  assert Path(tmp_path / 'page.html').stat().st_size > 10_000
  assert gate.refused == 0
