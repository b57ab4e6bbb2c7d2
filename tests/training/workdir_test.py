"""Resuming: the config and the data that a run began with stay, or are accepted."""

import json
import shutil

import jax
import pytest

from gan_jax import UserError, data, prepare
from gan_jax.config import parse_config
from gan_jax.runtime.mesh import make_mesh
from gan_jax.training.trainer import Trainer
from gan_jax.training.workdir import check_resume, write_run_record
from tests.data.images import write_image_folder
from tests.runs import tiny_config


def config_of(folder, **changes):
  changes = {'model__n_classes': 2, 'data__name': str(folder), **changes}
  return parse_config(tiny_config('biggan_digits', **changes))


def check(workdir, folder, *, config=None, **allowed):
  config = config or config_of(folder)
  dataset = data.load_dataset(**config.source())
  return check_resume(workdir, config, dataset, **allowed)


@pytest.fixture
def run(tmp_path):
  """A workdir as a run on a folder of images leaves it, and that folder."""
  folder, workdir = tmp_path / 'pets', tmp_path / 'run'
  write_image_folder(folder, 8, 16)
  config = config_of(folder)
  assert check(workdir, folder) == []
  dataset = data.load_dataset(**config.source())
  write_run_record(workdir, config, make_mesh(), dataset)
  return workdir, folder


def rename_class(folder):
  (folder / 'cat').rename(folder / 'emu')


def reorder_classes(folder):
  (folder / 'cat').rename(folder / 'tmp')
  (folder / 'dog').rename(folder / 'cat')
  (folder / 'tmp').rename(folder / 'dog')


def add_image(folder):
  shutil.copy(folder / 'cat' / '000.png', folder / 'cat' / '100.png')


def add_class(folder):
  shutil.copytree(folder / 'cat', folder / 'bee')


@pytest.mark.parametrize(
  'change, words',
  [
    (rename_class, 'lost classes: cat, new classes: emu'),
    (reorder_classes, 'the names or the order of the images'),
    (add_image, '8 -> 9 images'),
    (add_class, '8 -> 12 images; new classes: bee'),
  ],
)
def test_changed_data_are_refused_by_name(run, change, words):
  workdir, folder = run
  assert check(workdir, folder) == []
  change(folder)
  with pytest.raises(UserError) as error:
    check(workdir, folder)
  assert f'was run with other data ({words}' in str(error.value)
  assert '--allow_data_change' in str(error.value)
  accepted = check(workdir, folder, allow_data_change=True)
  assert accepted[0].startswith(f'accepted other data: {words}')
  with pytest.raises(UserError, match='other data'):  # before the number of classes
    Trainer(config_of(folder), workdir).run()


def test_moved_data_are_the_same_data(run):
  workdir, folder = run
  moved = folder.rename(folder.with_name('elsewhere'))
  with pytest.raises(UserError, match='no such folder.*--config.data.name=NEW'):
    Trainer(config_of(folder), workdir).run()
  assert check(workdir, moved) == [
    f'the same data, moved: data.name: {folder} -> {moved}'
  ]
  add_image(moved)
  with pytest.raises(UserError, match='other data .data.name: .*; 8 -> 9 images'):
    check(workdir, moved)


def test_a_set_is_the_same_in_its_folder_and_as_a_copy(tmp_path):
  write_image_folder(tmp_path / 'pets', 8, 16)
  prepare.main([str(tmp_path / 'pets'), str(tmp_path / 'set')])
  config = config_of(tmp_path / 'set')
  dataset = data.load_dataset(**config.source())
  write_run_record(tmp_path / 'run', config, make_mesh(), dataset)
  moved = shutil.move(tmp_path / 'set', tmp_path / 'moved')
  for cache in ('', str(tmp_path / 'cache')):
    config = config_of(moved, data__cache=cache)
    assert check(tmp_path / 'run', moved, config=config) == [
      f'the same data, moved: data.name: {tmp_path}/set -> {tmp_path}/moved'
    ]


def test_a_resolution_that_is_missing_ends_the_run_at_once(tmp_path):
  write_image_folder(tmp_path / 'pets', 8, 16)
  prepare.main([str(tmp_path / 'pets'), str(tmp_path / 'set')])
  shutil.rmtree(tmp_path / 'set' / '4')
  raw = tiny_config('progan_lsun', data__name=str(tmp_path / 'set'))
  with pytest.raises(UserError, match='set/4/1.0.0/.* is missing, but manifest.json'):
    Trainer(parse_config(raw), tmp_path / 'run').run()
  assert not (tmp_path / 'run').exists()


def test_config_and_data_are_refused_in_one_sentence(run):
  workdir, folder = run
  add_image(folder)
  config = config_of(folder, schedule__g_lr=1.0)
  with pytest.raises(
    UserError,
    match='another config .schedule.g_lr: .* and other data .8 -> 9 images.: take '
    'another workdir, or --allow_config_change and --allow_data_change',
  ):
    check(workdir, folder, config=config)
  with pytest.raises(UserError, match='run with other data .8 -> 9 images.: take'):
    check(workdir, folder, config=config, allow_config_change=True)


def test_a_run_of_an_earlier_version_resumes(run):
  workdir, folder = run
  path = workdir / 'run.json'
  record = json.loads(path.read_text())
  del record['dataset']['digests']
  path.write_text(json.dumps(record))
  assert check(workdir, folder) == []
  moved = shutil.copytree(folder, folder.with_name('copy'))
  with pytest.raises(UserError, match='another config .data.name: .*allow_config'):
    check(workdir, moved)
  assert 'data.name' in check(workdir, moved, allow_config_change=True)[0]
  add_image(folder)
  with pytest.raises(UserError, match='8 -> 9 images'):
    check(workdir, folder)
  for text in ('{}', '{"dataset": null}', 'half a'):  # imported, or written by hand
    path.write_text(text)
    assert check(workdir, folder) == []
  path.unlink()
  assert check(workdir, folder) == []


def test_the_record_states_the_matmul_precision(run):
  workdir, folder = run
  precision = lambda: json.loads((workdir / 'run.json').read_text())['matmul_precision']
  assert precision() == 'default'
  config = config_of(folder, train__matmul_precision='float32')
  dataset = data.load_dataset(**config.source())
  with jax.default_matmul_precision('tensorfloat32'):  # the config takes precedence
    write_run_record(workdir, config, make_mesh(), dataset)
  assert precision() == 'float32'
