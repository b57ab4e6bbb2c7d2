"""Numbers of the configs: each has a source, and "equal" to an original is a fact."""

import importlib
import io
import re
import tokenize
from pathlib import Path

import pytest

from docs import recipe_numbers
from docs.recipe_numbers import LOG, OURS, Original, all_values, set_numbers

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(path.stem for path in (ROOT / 'configs').glob('*.py'))
RECIPES = recipe_numbers.recipes()
PLACE = re.compile(r'\b(section|table|appendix|figure) [A-Z0-9]')


def check(values, originals, numbers):
  """The mistakes in the sources of one variant of a config.

  Args:
    values: of all keys, defaults included.
    originals: by key.
    numbers: keys that the config sets.
  """
  wrong = [f'{key} has no source' for key in numbers if key not in originals]
  for key, (value, source, why) in originals.items():
    if 'paper' in source and not PLACE.search(source):
      wrong.append(f'{key}: {source!r} names no section, table or appendix')
    if source == OURS:
      continue
    if why and values[key] == value:
      wrong.append(f'{key} is {value}, as in the original: {why!r}')
    elif not why and values[key] != value:
      wrong.append(f'{key} is {values[key]}, and {value} in the original')
  return wrong


def variants(name):
  module = importlib.import_module(f'configs.{name}')
  return set(getattr(module, 'VARIANTS', ('', 'tiny'))) - {'tiny'}


@pytest.mark.parametrize('name', CONFIGS)
def test_every_number_has_a_source_and_is_equal_or_says_why_not(name):
  assert variants(name) == set(RECIPES[name])
  for variant, originals in RECIPES[name].items():
    numbers = set(set_numbers(name, variant)) - LOG
    wrong = check(all_values(name, variant), originals, numbers)
    assert not wrong, f'{name}:{variant}: ' + '; '.join(wrong)


@pytest.mark.parametrize(
  'original, words',
  [
    (Original(2, 'train.py'), 'a.b is 3, and 2 in the original'),
    (Original(3, 'train.py', 'larger'), "a.b is 3, as in the original: 'larger'"),
    (Original(3, 'paper'), "'paper' names no section, table or appendix"),
    (Original(3, 'paper; train.py'), 'names no section'),
    (None, 'a.b has no source'),
  ],
)
def test_mistakes_in_sources_are_found(original, words):
  (wrong,) = check({'a.b': 3}, {'a.b': original} if original else {}, {'a.b'})
  assert words in wrong


def marks(source):
  """The comments of a module with the numbers of their lines."""
  tokens = tokenize.generate_tokens(io.StringIO(source).readline)
  return [(t.start[0], t.string) for t in tokens if t.type == tokenize.COMMENT]


@pytest.mark.parametrize('name', CONFIGS)
def test_a_mark_that_says_paper_says_where(name):
  source = (ROOT / 'configs' / f'{name}.py').read_text()
  unclear = [
    f'line {line}: {text}'
    for line, text in marks(source)
    if re.search(r'\bpaper\b', text) and not PLACE.search(text)
  ]
  assert not unclear


def test_the_page_is_the_one_that_the_configs_give():
  assert recipe_numbers.PAGE.read_text() == recipe_numbers.page(), (
    'run python docs/recipe_numbers.py'
  )
