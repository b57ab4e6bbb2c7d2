"""Splits and single folders around the classes are no classes."""

import pytest

from gan_jax import UserError, data, prepare
from gan_jax.data.folder import open_folder_or_zip
from gan_jax.data.layout import split_of
from tests.data.images import PNG, write_files, write_zip


def write(path, names):
  if path.suffix == '.zip':
    return write_zip(path, dict.fromkeys(names, PNG))
  write_files(path, dict.fromkeys(names, PNG))
  return path


def in_splits(*splits, classes=('cat', 'dog'), n=2):
  return [f'{s}/{c}/{i}.png' for s in splits for c in classes for i in range(n)]


@pytest.mark.parametrize('kind', ['src', 'src.zip'])
@pytest.mark.parametrize('prefix', ['', 'pets/', 'a/b/c/'])
@pytest.mark.parametrize(
  ('folders', 'split', 'chosen'),
  [
    (('train', 'val', 'test'), 'train', 'train'),
    (('train', 'val', 'test'), 'validation', 'val'),
    (('Training', 'Testing'), 'test', 'Testing'),
    (('training_set', 'test_set'), 'train', 'training_set'),
    (('train', 'valid'), 'val', 'valid'),
    (('val', 'validation'), 'val', 'val'),
    (('train', 'test', 'unlabeled'), 'train', 'train'),
    (('train',), 'train', 'train'),
    (('eval',), 'train', 'eval'),  # the only folder of an archive
    (('test',), 'test', 'test'),
  ],
)
def test_the_split_that_is_named_is_taken(
  tmp_path, kind, prefix, folders, split, chosen
):
  path = write(tmp_path / kind, [f'{prefix}{n}' for n in in_splits(*folders)])
  source = open_folder_or_zip(path, split)
  assert source.class_names == ('cat', 'dog')
  assert [source.display_name(i) for i in range(4)] == [
    f'{prefix}{n}' for n in in_splits(chosen)
  ]
  others = [f for f in folders if f != chosen]
  assert source.n_images == 4 and source.n_other_files == 4 * len(others)
  assert source.ignored == {
    f'{prefix}{f}/': (
      f'{"is another split than" if split_of(f) else "is no split, as is"} {chosen}/ '
      '(4 images)'
    )
    for f in others
  }


@pytest.mark.parametrize(
  ('names', 'split', 'message'),
  [
    (in_splits('val', 'test'), 'train', "has the splits .*, but data.split is 'train'"),
    (in_splits('train', 'training'), 'train', None),
    (in_splits('trainset', 'training'), 'train', 'of which 2 fit, but data.split'),
    (['cat/1.png'], 'test', "has only the split 'train', not 'test'"),
    (in_splits('train', 'test'), 'train[:9%]', r"data.split is 'train\[:9%\]': set"),
    (
      [*in_splits('train', 'test'), 'a.png'],
      'train',
      r'its splits test, train \(a.png',
    ),
    (
      in_splits('train', 'extra'),
      'train',
      'train holds folders of images beside extra',
    ),
    (['trainA/1.png', 'trainB/1.png', 'testA/1.png'], 'train', 'rs testA, trainA, tra'),
  ],
)
def test_unclear_splits_are_refused(tmp_path, names, split, message):
  path = write(tmp_path / 'src', names)
  if message is None:
    assert open_folder_or_zip(path, split).n_images == 4
    return
  with pytest.raises(UserError, match=message):
    open_folder_or_zip(path, split)


def test_splits_without_classes_are_unlabeled(tmp_path):
  path = write(tmp_path / 'src', ['train/1.png', 'train/2.png', 'test/1.png'])
  source = open_folder_or_zip(path)
  assert (source.n_images, source.class_names) == (2, ())


def test_single_folders_around_the_classes_are_skipped(tmp_path):
  names = [f'ILSVRC/Data/CLS-LOC/train/{c}/{i}.JPEG' for c in 'ab' for i in range(2)]
  source = open_folder_or_zip(write(tmp_path / 'src', names))
  assert source.class_names == ('a', 'b') and source.labels.tolist() == [0, 0, 1, 1]


def test_a_class_may_be_called_like_a_split(tmp_path):
  path = write(tmp_path / 'src', ['bus/1.png', 'train/1.png', 'tram/1.png'])
  assert open_folder_or_zip(path).class_names == ('bus', 'train', 'tram')


def test_tables_of_splits_are_relative_to_their_folder(tmp_path):
  path = write(tmp_path / 'src', ['train/1.png', 'train/2.png', 'test/1.png'])
  table = b'{"file_name": "1.png", "label": "b"}\n{"file_name": "2.png", "label": "a"}'
  write_files(path, {'train/metadata.jsonl': table, 'test/metadata.jsonl': table})
  source = open_folder_or_zip(path)
  assert source.labels.tolist() == [1, 0] and source.n_other_files == 2
  (path / 'train/metadata.jsonl').rename(path / 'labels.jsonl')
  assert open_folder_or_zip(path).labels.tolist() == [1, 0]


def test_commands_take_the_split_and_say_what_they_read(tmp_path, capsys, caplog):
  path = str(write(tmp_path / 'src', in_splits('train', 'test')))
  dataset = data.load_dataset(path, split='test', res=8, channels=3)
  assert dataset.class_names == ('cat', 'dog') and len(dataset.examples) == 4
  classes = 'labels from sub-folders: 2 classes by name: 0 cat, 1 dog'
  assert dataset.origin == f'folder, 0 image files left out, 4 other files; {classes}'
  train = 'train/ is another split than test/ (4 images)'
  assert f'{path}: not read: {train}.' in caplog.text
  prepare.main([path, str(tmp_path / 'pets'), '--split=test', '--dry-run'])
  out = capsys.readouterr().out
  assert f'not read: {train}\n' in out and 'labels come from sub-folders: 2 cl' in out
