"""Classes by label and by name."""

import json

import pytest

from gan_jax import UserError
from gan_jax.sampling.class_names import format_labels, parse_classes, read_class_names

ZOO = ('ape', 'bee', 'Cow', 'sea lion', 'Doe, John', 'Doe')
YEARS = ('0-2', '3-9', '10-19')  # as of faces
COUNTED = ('1', '2', '3')  # label 0 is called 1


@pytest.mark.parametrize(
  'names, text, labels',
  [
    ((), '0-1,2', [0, 1, 2]),
    (ZOO, 'bee', [1]),
    (ZOO, 'cow,APE', [2, 0]),
    (ZOO, '0-1, sea lion ,5', [0, 1, 3, 5]),
    (ZOO, 'Doe, John,Doe,ape', [4, 5, 0]),
    (ZOO, '#3,4', [3, 4]),
    (('Cat', 'cat'), 'cat', [1]),
    (('caf\u00e9', 'tea'), 'cafe\u0301', [0]),
    (YEARS, '3-9,10-19', [1, 2]),
    (YEARS, '#1-2', [1, 2]),
    (COUNTED, '#1,#0-2', [1, 0, 1, 2]),
    (COUNTED, '3', [2]),  # there is no label 3
    (tuple('0123'), '1-3', [1, 2, 3]),
    (('10', '20'), '20', [1]),
    (('a', '#1 fan'), '#1 fan,#0', [1, 0]),
  ],
)
def test_labels_and_names(names, text, labels):
  n = len(names) or 6
  assert parse_classes(text, n, names) == labels
  assert parse_classes(format_labels(labels, names), n, names) == labels


@pytest.mark.parametrize(
  'names, text, words',
  [
    ((), '6', r'--classes=6: classes are 0-5\.'),
    ((), 'ape', 'no names of classes are known here, and classes are 0-5'),
    ((), '4-2', '4-2 runs from high to low'),
    (ZOO, 'beee', r"no class is named 'beee' \(did you mean 'bee'\?\); .*0 ape, 1 bee"),
    (ZOO, 'ape,,bee', "no class is named ''"),
    (ZOO, '#ape', r"no class is named '#ape' \(did you mean 'ape'"),
    (ZOO, '#3-1', '3-1 runs from high to low'),
    (ZOO, '-1', "no class is named '-1'.*classes are 0-5"),
    (('Cat', 'CAT'), 'cat', "can be 'Cat' and 'CAT'"),
    (COUNTED, '1', "'1' is a label and also .* the label 0; write '#1' .* or '#0'"),
    (COUNTED, '0-2', "'1' is a label and also .* the label 0; write '#0-2'"),
    (COUNTED, '4', 'classes are 0-2'),
  ],
)
def test_what_is_refused(names, text, words):
  with pytest.raises(UserError, match=words):
    parse_classes(text, len(names) or 6, names)


def test_class_names_of_a_run(tmp_path):
  assert read_class_names(tmp_path, 2) == ()
  record = {'dataset': {'images': 4, 'classes': ['a', 'b']}}
  (tmp_path / 'run.json').write_text(json.dumps(record))
  assert read_class_names(tmp_path, 2) == ('a', 'b')
  assert read_class_names(tmp_path, 3) == ()
