"""One form for the names of folders, zips and tables."""

import pytest

from gan_jax.data.names import normal_form, path_form, suffix_of, system_reason


@pytest.mark.parametrize(
  'name',
  [
    'sub/x.png',
    './sub/x.png',
    '.\\sub\\x.png',
    'sub//x.png',
    'sub/./x.png',
    '/sub/x.png',
  ],
)
def test_path_form(name):
  assert path_form(name) == 'sub/x.png'


def test_paths_that_lead_out_stay_so():
  assert path_form('../x.png') == '../x.png' and path_form('a/..\\b') == 'a/../b'


@pytest.mark.parametrize(
  ('name', 'other', 'equal'),
  [
    ('a/\u00e9.PNG', '.\\a\\e\u0301.png', True),
    ('a.jpg', 'a.jpeg', False),
    ('A.png', 'a.png', False),  # only the case of suffixes differs between systems
    ('v1.B/x', 'v1.b/x', False),
  ],
)
def test_normal_form(name, other, equal):
  assert (normal_form(name) == normal_form(other)) == equal


def test_suffix_of():
  assert suffix_of('a.b/c.TAR.Gz') == '.gz'
  assert suffix_of('a.b/c') == suffix_of('.png') == suffix_of('a/.png') == ''


def test_system_names_are_complete_names():
  for name in ('Thumbs.db', '@EADIR', '__MACOSX', '.x', 'Desktop.ini', '$Recycle.Bin'):
    assert system_reason(name)
  for name in ('Thumbs', 'eaDir', '@me', '#1', 'lost', 'macosx', '_x', 'x.'):
    assert not system_reason(name)
