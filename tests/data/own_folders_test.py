"""Runs and prepared sets among the images are left out, and refused as a source."""

import pytest

from gan_jax import UserError
from gan_jax.data.folder import open_folder_or_zip
from tests.data.images import PNG, write_files, write_zip

RUN = {'config.json': b'{}', 'checkpoints/8/x': b'', 'samples/000008.png': PNG}
SET = {
  'manifest.json': b'{"levels": {}, "source_state": ""}',
  '4/1.0.0/x.array_record-00000-of-00001': b'',
  'report.png': PNG,
}


def below(folder, files):
  return {f'{folder}/{name}': content for name, content in files.items()}


@pytest.mark.parametrize('kind', ['folder', 'zip'])
def test_runs_and_prepared_sets_are_no_classes(tmp_path, kind):
  files = {
    'cat/1.png': PNG,
    'dog/1.png': PNG,
    'web/config.json': b'',
    'web/1.png': PNG,
    'web/manifest.json': b'{"name": "app"}',
    **below('runs/first', RUN),
    **below('old', {'config.json': b'{}', 'run.json': b'{}', 'data.png': PNG}),
    **below('cat/set', SET),
    'new.partial/.work/plan.json': b'{}',
    'new.partial/report.png': PNG,
  }
  path = tmp_path / kind
  if kind == 'zip':
    write_zip(path, files)
  else:
    write_files(path, files)
  source = open_folder_or_zip(path)
  assert source.class_names == ('cat', 'dog', 'web') and source.n_images == 3
  run = 'is the workdir of a run of gan_jax'
  assert source.ignored == {
    'cat/set/': 'is a set prepared by gan_jax.prepare',
    'new.partial/': 'is an unfinished set of gan_jax.prepare',
    'new.partial/.work/': 'is hidden',
    'old/': run,
    'runs/first/': run,
  }
  assert source.n_images + source.n_other_files == len(files)


@pytest.mark.parametrize(
  ('files', 'kind'),
  [
    (RUN, 'the workdir of a run of gan_jax'),
    (SET, 'a set prepared by gan_jax.prepare'),
  ],
)
def test_they_are_no_source(tmp_path, files, kind):
  write_files(tmp_path, files)
  message = f'{tmp_path} is {kind}, not a folder or zip of images'
  with pytest.raises(UserError, match=message):
    open_folder_or_zip(tmp_path)
