"""Commands in README.md and docs/ are commands that exist, with flags they know."""

import argparse
import importlib
import itertools
import re
import shlex
from pathlib import Path

import pytest

from gan_jax.config import load_config

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]
PARSERS = {
  'sample': 'sample',
  'evaluate': 'evaluate',
  'prepare': 'prepare.command',
  'importers': 'importers.__main__',
  'plan': 'plan.__main__',
  'report': 'report.__main__',
  'explore': 'explore.__main__',
}
MAIN_FLAGS = {'config', 'workdir', 'allow_config_change', 'distributed', 'peer_timeout'}


def commands(page: Path) -> list[tuple[str, list[str]]]:
  """(module, arguments) of every complete gan_jax command in the page's code blocks."""
  found = []
  blocks = re.findall(
    r'```\w*\n(.*?)```|((?:^    .*\n)+)', page.read_text(), re.S | re.M
  )
  for line in ''.join(itertools.chain(*blocks)).replace('\\\n', ' ').splitlines():
    match = re.search(r'python -m gan_jax\.(\w+)([^;&#`]*)', line)
    if match and '...' not in line and '[' not in line:
      found.append((match[1], shlex.split(match[2].rstrip("' "))))
  return found


COMMANDS = [
  pytest.param(module, arguments, id=f'{page.name}-{i}-{module}')
  for page in PAGES
  for i, (module, arguments) in enumerate(commands(page))
]


def test_the_pages_have_commands():
  assert len(COMMANDS) > 30
  assert {param.values[0] for param in COMMANDS} == {'main', *PARSERS}


@pytest.mark.parametrize('module, arguments', COMMANDS)
def test_a_command_parses(module, arguments):
  if module == 'main':
    return check_training_command(arguments)
  parser = importlib.import_module(f'gan_jax.{PARSERS[module]}').make_parser()
  assert isinstance(parser, argparse.ArgumentParser)
  parser.parse_args(arguments)
  return None


def check_training_command(arguments: list[str]) -> None:
  flags = dict(argument[2:].partition('=')[::2] for argument in arguments)
  assert {name.partition('.')[0] for name in flags} <= MAIN_FLAGS
  name = flags['config']
  if name.startswith('configs/'):
    config = load_config(str(ROOT / name))
    for flag in flags:
      section, _, key = flag.removeprefix('config.').partition('.')
      assert not key or hasattr(getattr(config, section), key), flag


def test_links_lead_to_files():
  for page in PAGES:
    for target in re.findall(r'\]\(([^)#\s]+)', page.read_text()):
      if '://' not in target:
        assert (page.parent / target).exists(), f'{page.name}: {target}'


def test_the_readme_has_at_most_a_thousand_words():
  assert len((ROOT / 'README.md').read_text().split()) <= 1000
