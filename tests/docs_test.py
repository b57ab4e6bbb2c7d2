"""Commands and config keys in documentation and messages are those that exist."""

import ast
import importlib
import itertools
import re
import shlex
from functools import cache
from pathlib import Path
from typing import get_type_hints

import pytest

from gan_jax import UserError, main
from gan_jax.config import FAMILIES, load_config
from gan_jax.config.files import find_config
from gan_jax.config.overrides import split_overrides
from gan_jax.config.parsing import RENAMED, section_classes, section_keys
from gan_jax.config.values import parse_text
from gan_jax.runtime.commands import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = [
  ROOT / 'README.md',
  *sorted((ROOT / 'docs').glob('*.md')),
  *sorted((ROOT / 'experiments').glob('*/README.md')),
]
CONFIGS = sorted(ROOT.glob('configs/*.py'))
MODULES = [*sorted(ROOT.glob('gan_jax/**/*.py')), *CONFIGS]
PARSERS = {
  'sample': 'sample',
  'evaluate': 'evaluate',
  'prepare': 'prepare.command',
  'importers': 'importers.__main__',
  'exporters': 'exporters.__main__',
  'plan': 'plan.__main__',
  'report': 'report.__main__',
  'explore': 'explore.__main__',
  'figures': 'figures.__main__',
  'directions': 'directions.__main__',
  'project': 'project.__main__',
  'blend': 'blend',
  'study': 'study.__main__',
}
COMMAND = re.compile(
  rf'(?:python -m gan_jax\.(\w+)|\bgan_jax ({"|".join(COMMANDS)})\b)([^;&#`\n]*)'
)
NOT_KEYS = {  # files and functions that look like keys
  *('data.png', 'data.pkl', 'data.load_dataset', 'data.iterate_batches'),
  *('model.npz', 'model.py', 'model.safetensors', 'train.array_record', 'train.py'),
}


def code_blocks(page: Path) -> str:
  """The text of a page's code blocks; of a module, its docstring."""
  text = page.read_text()
  if page.suffix == '.py':
    return ast.get_docstring(ast.parse(text)) or ''
  blocks = re.findall(r'```\w*\n(.*?)```|((?:^    .*\n)+)', text, re.S | re.M)
  return ''.join(itertools.chain(*blocks))


def commands(page: Path) -> list[tuple[str, list[str]]]:
  """(module, arguments) of every complete gan_jax command in the page's code blocks."""
  found = []
  for line in code_blocks(page).replace('\\\n', ' ').splitlines():
    match = COMMAND.search(line)
    if match and not re.search(r'\.\.\.|\[|PLACEHOLDER|\$@', line):
      module = match[1] or COMMANDS[match[2]].module.removeprefix('gan_jax.')
      # A module's docstring continues in prose.
      arguments = match[3].rstrip("' ") if page.suffix == '.md' else match[3]
      found.append((module, shlex.split(arguments)))
  return found


FULL_COMMANDS = [
  pytest.param(module, arguments, id=f'{page.stem}-{i}-{module}')
  for page in [*PAGES, ROOT / 'gan_jax/main.py', *CONFIGS]
  for i, (module, arguments) in enumerate(commands(page))
]


def test_the_pages_have_commands():
  assert len(FULL_COMMANDS) > 50
  assert {param.values[0] for param in FULL_COMMANDS} == {'main', *PARSERS}


@pytest.mark.parametrize('module, arguments', FULL_COMMANDS)
def test_a_command_parses(module, arguments):
  if module == 'main':
    return check_training_command(arguments)
  if module in ('plan', 'study'):
    arguments, _ = split_overrides(arguments)
  importlib.import_module(f'gan_jax.{PARSERS[module]}').make_parser().parse_args(
    arguments
  )
  return None


def check_training_command(arguments: list[str]) -> None:
  """Parses the command; its keys against the config where that one is shipped."""
  others, overrides = split_overrides(arguments)
  args = main.make_parser().parse_args(others)
  for key, text in overrides:
    check_key(key, text)
  try:
    find_config(args.config)
  except UserError:
    assert args.config == 'CONFIG' or args.config.startswith('runs/')
  else:
    load_config(args.config, overrides)


@cache
def known_keys() -> dict[str, list[type]]:
  """'section.key' -> its types, in those families that have it."""
  known: dict[str, list[type]] = {}
  for family in FAMILIES:
    classes = section_classes({'family': family})
    for section, cls in classes.items():
      types = {'family': str, **get_type_hints(cls)}
      for key in section_keys(section, classes):
        known.setdefault(f'{section}.{key}', []).append(types[key])
  return known


def check_key(key: str, text: str | None) -> None:
  """Asserts that a key exists, and that the text stands for a value of its type."""
  assert key in known_keys(), key
  if text is None:
    assert bool in known_keys()[key]
    return
  for annotation in known_keys()[key]:
    try:
      parse_text(key, text, annotation)
    except UserError:
      continue
    return
  raise AssertionError(f'{key}={text}')


def texts(path: Path) -> list[str]:
  """The text of a page, or the strings of a module, with {} for inserted values."""
  if path.suffix != '.py':
    return [path.read_text()]
  strings = []
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.JoinedStr):
      parts = (v.value if isinstance(v, ast.Constant) else '{}' for v in node.values)
      strings.append(''.join(map(str, parts)))
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
      strings.append(node.value)
  return strings


def mentioned_keys(path: Path) -> list[tuple[str, str | None]]:
  """('section.key', 'value' or None) wherever a page or a message mentions a key."""
  sections = '|'.join({key.partition('.')[0] for key in (*known_keys(), *RENAMED)})
  value = r"""(?:='?(?P<value>\([^)]*\)|[^\s`'",;:)\]|]+))?"""
  pattern = rf'(?<![\w./])(?:--config\.)?(?P<key>(?:{sections})\.[a-z]\w*){value}'
  found = []
  for text in texts(path):
    for match in re.finditer(pattern, text):
      given = (match['value'] or '').rstrip('.')
      unknown = not given or re.search(r'[{}<>]|\.\.|^[A-Z]+$', given)
      found.append((match['key'], None if unknown else given))
  return found


@pytest.mark.parametrize('pages', [PAGES, MODULES, [ROOT / 'Makefile']])
def test_every_key_that_is_mentioned_exists_and_takes_its_value(pages):
  total = 0
  for page in pages:
    for key, value in mentioned_keys(page):
      renamed = page.name == 'parsing.py' and key in RENAMED
      if key not in NOT_KEYS and not renamed:
        total += 1
        assert key in known_keys(), f'{page}: {key}'
        if value is not None:
          check_key(key, value)
  assert total > 30 or pages[0].name == 'Makefile'


def test_mentions_are_seen(tmp_path):
  page = tmp_path / 'page.md'
  page.write_text(
    "`train.acum`, `score.best_by='fid'`, data/train.py, see --config.train.accum=2.\n"
    'gan_jax.data.x `model.remat=False,True` `data.name=...` `watch.gap`'
    ' schedule.batch=(64,32),(8,4)'
  )
  assert mentioned_keys(page) == [
    ('train.acum', None),
    ('score.best_by', 'fid'),
    ('train.accum', '2'),
    ('model.remat', 'False'),
    ('data.name', None),
    ('watch.gap', None),
    ('schedule.batch', '(64,32)'),
  ]
  with pytest.raises(AssertionError, match='train.acum'):
    check_key('train.acum', None)
  with pytest.raises(AssertionError, match='train.accum=two'):
    check_key('train.accum', 'two')


def test_links_lead_to_files():
  for page in PAGES:
    for target in re.findall(r'\]\(([^)#\s]+)', page.read_text()):
      if '://' not in target:
        assert (page.parent / target).exists(), f'{page.name}: {target}'


def test_the_readme_has_at_most_a_thousand_words():
  assert len((ROOT / 'README.md').read_text().split()) <= 1000
