"""Checks before training: labels that fit the model, equal data on all hosts."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gan_jax import UserError, data
from tests.data.images import NumberedExamples, encode, write_image_folder


def test_the_number_of_classes_has_to_match():
  emoji = data.Dataset('emoji', NumberedExamples(2), tuple('abcdefghi'))
  data.check_labels(emoji, 9)
  data.check_labels(emoji, 0)
  with pytest.raises(
    UserError, match='n_classes=10, .* has 9 classes: set n_classes=9'
  ):
    data.check_labels(emoji, 10)
  faces = data.Dataset('faces', NumberedExamples(2))
  data.check_labels(faces, 0)
  with pytest.raises(
    UserError, match="n_classes=10, but dataset 'faces' has no labels"
  ):
    data.check_labels(faces, 10)


def test_labels_that_cannot_train_a_conditional_model():
  class Labeled(NumberedExamples):
    def __getitem__(self, i):
      return super().__getitem__(i)[0], self.labels[i]

  def dataset(labels, names=('cat', 'dog')):
    examples = Labeled(len(labels))
    examples.labels = labels
    return data.Dataset('pets', examples, names)

  data.check_labels(dataset([0, 1, 1]), 2)
  with pytest.raises(UserError, match="are of one class, 'dog': set n_classes=0"):
    data.check_labels(dataset([1, 1, 1]), 2)
  with pytest.raises(UserError, match="are of one class, 'cat': set n_classes=0"):
    data.check_labels(dataset([0], ('cat',)), 1)
  data.check_labels(dataset([1, 1, 1]), 0)
  with pytest.raises(UserError, match="Image 2 of dataset 'pets' has the label 2, but"):
    data.check_labels(dataset([0, 1, 2]), 2)
  with pytest.raises(
    UserError, match='Image 0 .* has the label -1, but its labels are 0'
  ):
    data.check_labels(dataset([-1, 1]), 2)


def test_hosts_with_different_copies_are_refused(tmp_path, free_port):
  """Two processes compare an equal copy, one with a file less, one with a changed file.

  Both get the same answer, and can go on to the next comparison.
  """
  write_image_folder(tmp_path / 'original')
  copies = [tmp_path / name for name in ('equal', 'shorter', 'changed')]
  for copy in copies:
    shutil.copytree(tmp_path / 'original', copy)
  (tmp_path / 'shorter/cat/000.png').unlink()
  (tmp_path / 'changed/cat/000.png').write_bytes(
    encode(np.zeros((16, 16, 3), np.uint8))
  )
  program = Path(__file__).parent / 'programs' / 'check_hosts.py'
  folders = [[tmp_path / 'original'] * 3, copies]
  processes = [
    subprocess.Popen(
      [
        *(sys.executable, program, f'127.0.0.1:{free_port}', str(i)),
        *(tmp_path / f'{i}.txt', *folders[i]),
      ],
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
    )
    for i in range(2)
  ]
  output = [process.communicate(timeout=300) for process in processes]
  for i in range(2):
    assert processes[i].returncode == 0, output[i]
    equal, shorter, changed = (tmp_path / f'{i}.txt').read_text().splitlines()
    assert equal == 'same'
    assert re.match(r'Processes 0 and 1 .*\(20 and 19 images\): give', shorter)
    assert re.match(
      r'Processes 0 and 1 read different data .*\(20 and 20 images\): give', changed
    )
