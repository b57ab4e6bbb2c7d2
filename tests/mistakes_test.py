"""Wrong input to each of the commands: exit code 2, and one sentence."""

import importlib
import json
import os
import sys

import numpy as np
import pytest
from PIL import Image

from gan_jax.config import parse_config
from gan_jax.runtime.errors import run_command
from tests.runs import tiny_config

MODULES = {
  'main': 'gan_jax.main',
  'sample': 'gan_jax.sample',
  'evaluate': 'gan_jax.evaluate',
  'prepare': 'gan_jax.prepare',
  'plan': 'gan_jax.plan.__main__',
  'report': 'gan_jax.report.__main__',
  'explore': 'gan_jax.explore.__main__',
  'importers': 'gan_jax.importers.__main__',
  'figures': 'gan_jax.figures.__main__',
  'directions': 'gan_jax.directions.__main__',
  'project': 'gan_jax.project.__main__',
  'study': 'gan_jax.study.__main__',
  'exporters': 'gan_jax.exporters.__main__',
  'blend': 'gan_jax.blend',
}
CONFIGS = {  # folder -> the config.json in it
  'cut': b'{"model": {"family"',
  'binary': b'\xff\xfe\x00\x80',
  'list': b'[1]',
  'number': b'{"model": 3}',
}
RUN_OF = {  # the command line that reads the workdir RUN
  'main': '--config=biggan_digits:tiny --workdir=RUN',
  'sample': '--workdir=RUN --out=x.png',
  'evaluate': '--workdir=RUN --metrics=swd',
  'report': 'RUN',
  'explore': '--workdir=RUN --port=18099',
  'figures': '--workdir=RUN',
  'directions': '--workdir=RUN',
  'project': 'images/0.png --workdir=RUN',
  'study': 'run --study=x --config=RUN/config.json',
  'exporters': '--workdir=RUN --out=x',
  'blend': 'RUN no_checkpoints --res=8 --out=x',
}
NOT_WRITABLE = {  # the command line that writes OUT
  'main': '--config=biggan_digits:tiny --workdir=OUT',
  'sample': '--workdir=no_checkpoints --out=OUT.png',
  'prepare': 'images OUT',
  'plan': '--config=biggan_digits:tiny --json=OUT.json',
  'report': 'no_checkpoints --out=OUT.html',
  'figures': '--workdir=no_checkpoints --out=OUT',
  'directions': '--workdir=no_checkpoints --out=OUT.npz',
  'project': 'images/0.png --workdir=no_checkpoints --out=OUT',
  'importers': 'weights.npz --workdir=OUT',
  'study': 'run --study=OUT --config=biggan_digits:tiny',
  'exporters': '--workdir=no_checkpoints --out=OUT',
  'blend': 'no_checkpoints no_checkpoints --res=8 --out=OUT',
}
URLS = ('gs:/one-slash', 'hdfs://name-node')  # that cannot be meant
# Commands that write on this machine.
ON_THIS_MACHINE = ('sample', 'prepare', 'plan', 'report', 'study', 'exporters', 'blend')
FILES_OF = {  # the command line that reads or writes a file or folder at URL
  'main': '--config=URL/x.py --workdir=x',
  'sample': '--program=URL/x.stablehlo --out=x.png',
  'evaluate': '--workdir=no_checkpoints --metrics=fid --inception=URL/x.pth',
  'plan': '--config=biggan_digits:tiny --json=URL/x.json',
  'importers': 'URL/x.npz --workdir=x',
}
DATA_OF = {  # the command line that reads data at URL
  'main': '--config=biggan_digits:tiny --workdir=x --config.data.name=URL/x',
  'evaluate': '--workdir=no_checkpoints --metrics=swd --data=URL/x',
  'prepare': 'URL/x sets',
}


def in_runs():
  for command, line in RUN_OF.items():
    for folder in ('none', 'file', 'empty', *CONFIGS):
      if command == 'main' and folder in ('none', 'empty'):
        continue  # training begins there
      if command == 'report' and folder == 'number':
        continue  # the report shows what it can read
      yield command, line.replace('RUN', folder)


CASES = [
  *in_runs(),
  *((c, line.replace('OUT', 'file/x')) for c, line in NOT_WRITABLE.items()),
  *((c, line.replace('OUT', '~nobody_here/x')) for c, line in NOT_WRITABLE.items()),
  *(
    (c, line.replace('OUT', f'{url}/x'))
    for c, line in NOT_WRITABLE.items()
    for url in URLS
  ),
  *((c, line.replace('RUN', f'{url}/x')) for c, line in RUN_OF.items() for url in URLS),
  *((c, line.replace('URL', url)) for c, line in FILES_OF.items() for url in URLS),
  *((c, line.replace('URL', url)) for c, line in DATA_OF.items() for url in URLS),
  *((c, line.replace('URL', 'gs://bucket')) for c, line in FILES_OF.items()),
  *((c, NOT_WRITABLE[c].replace('OUT', 's3://bucket/x')) for c in ON_THIS_MACHINE),
  *((c, f'{line} --nosuch=1') for c, line in RUN_OF.items()),
  *((command, '--nosuch') for command in MODULES),
  *((command, '') for command in MODULES if command != 'main'),  # it prints its usage
  ('main', '--config=biggan_digits:tiny'),
  ('main', '--workdir=x'),
  ('main', '--config=nosuch --workdir=x'),
  ('main', '--config=file --workdir=x'),
  ('main', '--config=biggan_digits:tiny --workdir=x --distributed=host'),
  ('main', '--config=biggan_digits:tiny --workdir=x --distributed=host:80,2,2'),
  ('main', '--config=biggan_digits:tiny --workdir=x --config.data.name=./nosuch'),
  ('main', '--config=biggan_digits:tiny --workdir=x --config.data.name=~nobody_here/x'),
  ('main', '--config=biggan_digits:tiny --workdir=x --config.data.name=nosuch'),
  ('main', '--config=biggan_digits:tiny --workdir=x --config.data.cache=cache'),
  ('main', '--config=biggan_digits:tiny --workdir=x --config.data.cache=gs://b/x'),
  ('main', '--config=biggan_digits:tiny --workdir=x --config.finetune.source=none'),
  ('main', '--config=biggan_digits:tiny --workdir=x --config.finetune.freeze_d=1'),
  ('main', '--config=biggan_digits:tiny --workdir=x --config.finetune.freeze_g=blok'),
  ('main', '--config=biggan_digits:tiny --workdir=x --config.model.first_map=3'),
  ('main', '--config=biggan_digits:tiny --workdir=x --config.model.first_map=3,40'),
  ('sample', '--workdir=no_checkpoints --out=x.png'),
  ('sample', '--workdir=no_checkpoints --out=x.png --latents=weights.npz'),
  ('sample', '--workdir=no_checkpoints --out=x.png --latents=file'),
  ('sample', '--workdir=no_checkpoints --out=x.png --latents=gs://bucket/x.npz'),
  ('sample', '--workdir=no_checkpoints --out=x.png --seeds=numpy:'),
  ('sample', '--workdir=no_checkpoints --out=x.png --direction=a:b'),
  ('sample', '--workdir=no_checkpoints --out=x.png --direction=a --directions=file'),
  ('sample', '--program=none --out=x.png'),
  ('sample', '--workdir=no_checkpoints --export=x.bin'),
  ('sample', '--workdir=no_checkpoints --export=file/x.onnx'),
  ('sample', '--program=file --out=x.png'),
  ('evaluate', '--workdir=no_checkpoints --metrics=swd'),
  ('evaluate', '--compare empty none'),
  ('evaluate', '--workdir=no_checkpoints --metrics=fid --inception=none'),
  ('evaluate', '--workdir=no_checkpoints --protocol=biggan --resizing=torch'),
  ('evaluate', '--workdir=no_checkpoints --metrics=fid --statistics=weights.npz'),
  ('evaluate', '--workdir=no_checkpoints --features=none'),
  ('evaluate', '--workdir=no_checkpoints --features=file'),
  ('evaluate', '--workdir=no_checkpoints --classifiers=empty,file'),
  ('evaluate', '--workdir=no_checkpoints --features=file --metrics=swd'),
  ('figures', '--workdir=no_checkpoints'),
  ('figures', '--workdir=no_checkpoints --figures=mixing'),
  ('figures', '--workdir=no_checkpoints --figures=nosuch'),
  ('directions', '--workdir=no_checkpoints'),
  ('directions', '--workdir=no_checkpoints --method=centers'),
  ('directions', '--workdir=no_checkpoints --method=nosuch'),
  ('directions', '--workdir=no_checkpoints --method=pca --classes=0,1'),
  ('directions', '--workdir=no_checkpoints --n=0'),
  ('directions', '--workdir=no_checkpoints --strengths=a'),
  ('directions', '--workdir=no_checkpoints --name=1:2'),
  ('directions', '--workdir=showcase'),
  ('project', '--workdir=no_checkpoints'),
  ('project', 'none.png'),
  ('project', 'images/0.png --workdir=showcase'),
  ('project', 'images/0.png --workdir=no_checkpoints --steps=0'),
  ('project', 'https://example.org/x.png --workdir=no_checkpoints'),
  ('project', 'images/0.png --workdir=no_checkpoints'),
  ('project', 'images/0.png --workdir=no_checkpoints --space=w'),
  ('project', 'images/0.png --workdir=no_checkpoints --space=v'),
  ('project', 'images/0.png --workdir=no_checkpoints --lpips=none'),
  ('prepare', 'none sets'),
  ('prepare', 'file sets'),
  ('prepare', 'empty sets'),
  ('prepare', '~nobody_here/x sets'),
  ('prepare', 'images images --res=16'),
  ('prepare', 'images sets --res=16x'),
  ('prepare', 'images sets --res=99x32'),
  ('plan', '--config=nosuch'),
  ('plan', '--config=biggan_digits:tiny --topology=v9:1x1'),
  ('report', 'empty none'),
  ('study', 'train --study=x --config=biggan_digits:tiny'),
  ('study', 'run --config=biggan_digits:tiny'),
  ('study', 'report --study=empty'),
  ('study', 'run --study=x --config=biggan_digits:tiny --spec=none'),
  ('study', 'run --study=x --config=biggan_digits:tiny --spec=images'),
  ('study', 'run --study=x --config=biggan_digits:tiny --batches=8,x'),
  ('study', 'run --study=x --config=biggan_digits:tiny --batches=12'),  # 8 devices
  ('study', 'run --study=x --config=biggan_digits:tiny --jobs=0'),
  ('study', 'run --study=x --config=biggan_digits:tiny --cell=1'),
  ('study', 'run --study=x --config=biggan_digits:tiny --distributed=auto'),
  ('study', 'run --study=x --config=biggan_digits:tiny --config.data.name=./nosuch'),
  ('study', 'run --study=x --config=biggan_digits:tiny --sweep=model.remt=True'),
  ('study', 'plan --study=x --config=biggan_digits:tiny --topologies=v5e:3x3'),
  ('study', 'plan --study=x --config=biggan_digits:tiny --cache=file'),
  ('explore', '--workdir=no_checkpoints --port=99999'),
  ('explore', '--workdir=no_checkpoints --port=0'),
  ('explore', '--workdir=no_checkpoints --host=no.such.host.invalid'),
  ('importers', 'none --workdir=x'),
  ('importers', 'empty --workdir=x'),
  ('importers', 'file --workdir=x'),
  ('exporters', '--workdir=no_checkpoints'),
  ('blend', 'no_checkpoints no_checkpoints --res=8 --out=x'),
  ('blend', 'no_checkpoints none --res=8 --out=x'),
  ('blend', 'no_checkpoints no_checkpoints --res=12 --out=x'),
  ('blend', 'no_checkpoints no_checkpoints --out=x'),
  ('exporters', '--workdir=no_checkpoints --out=x'),
  ('exporters', '--workdir=no_checkpoints --out=images'),
  ('exporters', '--workdir=no_checkpoints --out=x --format=onnx'),
]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A folder with runs, most of them broken, and other files."""
  folder = tmp_path_factory.mktemp('mistakes')
  for name, content in CONFIGS.items():
    (folder / name).mkdir()
    (folder / name / 'config.json').write_bytes(content)
  for name in ('empty', 'images', 'no_checkpoints'):
    (folder / name).mkdir()
  config = parse_config(tiny_config()).to_dict()
  (folder / 'no_checkpoints' / 'config.json').write_text(json.dumps(config))
  (folder / 'file').write_text('x')
  np.savez(folder / 'weights.npz', x=np.zeros(3))
  for value in (0, 80, 160):
    Image.new('RGB', (16, 16), (value, 0, 0)).save(folder / 'images' / f'{value}.png')
  return folder


@pytest.mark.parametrize('command, line', CASES)
def test_a_mistake_is_one_sentence_and_ends_with_2(
  folder, monkeypatch, capfd, command, line
):
  monkeypatch.chdir(folder)
  monkeypatch.setattr(os, '_exit', sys.exit)  # how training leaves
  before = sorted(folder.rglob('*'))
  monkeypatch.setattr(sys, 'argv', [command, *line.split()])
  main = importlib.import_module(MODULES[command]).main
  with pytest.raises(SystemExit) as exit:
    run_command(main)
  err = capfd.readouterr().err
  assert exit.value.code == 2, err
  assert err.startswith('error: ') and err.count('\n') == 1, err
  new = {path.name for path in folder.rglob('*')} - {path.name for path in before}
  assert new <= {'owner.json'}, new
