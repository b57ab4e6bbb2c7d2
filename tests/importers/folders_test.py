"""Folders and paths that are no source: named for what they hold."""

import json
import os
import shutil
from pathlib import Path

import pytest

from gan_jax import UserError
from gan_jax.importers import __main__ as cli
from gan_jax.importers.sources import read_published

POINTER = 'version https://git-lfs.github.com/spec/v1\noid sha256:a\nsize 2100\n'
RUN = json.dumps({'model': {}, 'schedule': {}, 'train': {}})
PREPARED = json.dumps({'format': 1, 'histogram': [], 'levels': {}})

# files of the folder -> words of the answer
FOLDERS = {
  'a run': ({'config.json': RUN, 'checkpoints/8/x': ''}, 'is a run of gan_jax, not'),
  'a prepared set': ({'manifest.json': PREPARED}, 'is a data set that gan_jax.prepare'),
  'a TFDS set': ({'dataset_info.json': '{}'}, 'data set of tensorflow-datasets'),
  'an export': ({'gen.stablehlo': 'x'}, 'a generator that gan_jax exported'),
  'a pointer': (
    {'pytorch_model.bin': POINTER, 'config.json': '{}'},
    'pytorch_model.bin is a Git LFS pointer to a file of 2.1 kB',
  ),
  'another model': (
    {'pytorch_model.bin': '\x00x', 'config.json': '{"model_type": "bert"}'},
    "is a Hugging Face model 'bert': give weights of BigGAN",
  ),
  'another config': (
    {'pytorch_model.bin': '\x00x', 'config.json': '{"layers": []}'},
    'config.json is not the config of a BigGAN: it lacks attention_layer_position',
  ),
  'a pointer to a config': (
    {'pytorch_model.bin': '\x00x', 'config.json': POINTER},
    'config.json is a Git LFS pointer',
  ),
  'no config': ({'pytorch_model.bin': '\x00x'}, 'lacks the config.json'),
  'parts': ({'pytorch_model.bin.index.json': '{}'}, 'in several parts'),
  'diffusers': ({'model_index.json': '{}'}, 'a pipeline of Hugging Face diffusers'),
  'a SavedModel': ({'saved_model.pb': 'x'}, 'is a TensorFlow SavedModel'),
  'checkpoints of TensorFlow': (
    {'model.ckpt-1.index': 'x', 'model.ckpt-1.data-00000-of-00001': 'x'},
    'is a folder of TensorFlow checkpoints',
  ),
  'an unpacked file': ({'data.pkl': 'x', 'data/0': 'x'}, 'without unpacking it'),
  'a file': ({'ffhq.pkl': 'x'}, r'has ffhq.pkl: give the file, such as \S+/ffhq.pkl'),
  'a folder deep inside': (
    {'refs/main': 'x', 'snapshots/1f/pytorch_model.bin': 'x'},
    r'but \S+/snapshots/1f has pytorch_model.bin: give that folder',
  ),
  'runs': ({'emoji/config.json': RUN}, 'has runs of gan_jax.*--workdir=.+/emoji'),
  'a folder': ({'BigGAN/G.pth': 'x'}, r'but \S+/BigGAN has G.pth: give that folder'),
  'images': ({'a.png': 'x', 'b.png': 'x'}, r'has images \(a.png, .*--config.data.name'),
  'nothing': ({}, 'is an empty folder: give weights of BigGAN'),
  'notes': ({'readme.txt': 'x'}, 'has readme.txt, which are no weights'),
  'D': ({'D.pth': 'x', 'state_dict.pth': 'x'}, 'has a discriminator only'),
  'suffixes': (
    {
      'D_best2.pth': 'x',
      'G_best3.pth': 'x',
      'D_best3.pth': 'x',
      'G_ema_copy0.pth': 'x',
      'G_optim.pth': '',
    },
    'has no G.pth or G_ema.pth but D_best2.pth, D_best3.pth, G_best3.pth, '
    'G_ema_copy0.pth: '
    '--suffix=best3 reads D_best3.pth and G_best3.pth',
  ),
}


@pytest.mark.parametrize('name', FOLDERS)
def test_a_folder_is_named_for_what_it_holds(tmp_path, name):
  files, words = FOLDERS[name]
  for file, text in files.items():
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(text)
  with pytest.raises(UserError, match=words) as found:
    read_published(tmp_path)
  assert str(found.value).startswith(str(tmp_path))
  assert '\n' not in str(found.value)


def test_a_wrong_suffix_lists_those_that_are_there(tmp_path):
  for name in ('G.pth', 'G_best3.pth', 'G_ema_copy0.pth'):
    (tmp_path / name).write_text('x')
  with pytest.raises(UserError, match=r'no G_best4.pth .*--suffix=best3 reads G_best3'):
    read_published(tmp_path, 'best4')
  with pytest.raises(UserError, match='but G_best3.pth, G_ema_copy0.pth, G.pth: '):
    read_published(tmp_path, 'x')


def test_a_part_of_a_run_or_of_a_folder_is_named(tmp_path):
  (tmp_path / 'config.json').write_text(RUN)
  (tmp_path / 'checkpoints' / '8').mkdir(parents=True)
  with pytest.raises(UserError, match=f'part of a run .*--workdir={tmp_path},'):
    read_published(tmp_path / 'checkpoints' / '8')
  for name in ('G_best3.pth', 'D_best3.pth'):
    (tmp_path / name).write_text('x')
  with pytest.raises(
    UserError, match=f'give the folder {tmp_path} with --suffix=best3'
  ):
    read_published(tmp_path / 'G_best3.pth')


def test_links_without_a_file(tmp_path):
  (tmp_path / 'G.pth').symlink_to('.git/annex/objects/x/G.pth')
  for source in (tmp_path, tmp_path / 'G.pth'):
    with pytest.raises(UserError, match='is a link to .git/annex.*git annex get'):
      read_published(source)


def test_missing_sources_and_addresses(tmp_path):
  os.mkfifo(tmp_path / 'pipe')
  with pytest.raises(UserError, match='pipe is neither a file nor a folder'):
    read_published(tmp_path / 'pipe')
  (tmp_path / 'G_best3.pth').write_text('x')
  with pytest.raises(UserError, match='G.pth: there is no such file.*has G_best3.pth'):
    read_published(tmp_path / 'G.pth')
  with pytest.raises(UserError, match='https://x.org/a.pkl is an address'):
    read_published('https://x.org/a.pkl')
  with pytest.raises(UserError, match='--suffix=a selects files of a .* folder'):
    read_published(tmp_path / 'G_best3.pth', 'a')


def test_paths_from_the_home_folder(tmp_path, monkeypatch, pickles):
  monkeypatch.setenv('HOME', str(tmp_path))
  shutil.copy(pickles / 'progan_tiny.pkl', tmp_path / 'a.bin')
  cli.main(['~/a.bin', '--workdir=~/runs/a'])
  assert (tmp_path / 'runs' / 'a' / 'config.json').is_file()


def test_the_workdir_is_checked_before_the_source_is_read(tmp_path):
  (tmp_path / 'file').write_text('')
  (tmp_path / 'set').mkdir()
  (tmp_path / 'set' / 'manifest.json').write_text(PREPARED)
  (tmp_path / 'G').mkdir()
  source = str(tmp_path / 'G')
  for workdir, words in (
    (tmp_path / 'file' / 'run', f'cannot be written: {tmp_path}/file is a file'),
    (tmp_path / 'file', 'is a file, not a folder'),
    (tmp_path / 'set', 'holds a prepared data set'),
    (Path(source), 'is the folder of the source'),
    (Path('/proc/run'), 'cannot be written: /proc takes no files'),
  ):
    with pytest.raises(UserError, match=words):
      cli.main([source, f'--workdir={workdir}'])
