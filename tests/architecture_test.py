"""Imports point downward, and every module says what it is for."""

import ast
from pathlib import Path

import pytest

from gan_jax.runtime.commands import COMMANDS

ROOT = Path(__file__).parent.parent / 'gan_jax'

# A package (or a command that is one file) may import those of the rows above its own.
ORDER = (
  {'runtime', 'ops'},
  {''},  # gan_jax/__init__.py: UserError, and the public API, which is loaded lazily
  {'nn', 'storage'},
  {'data'},
  {'models', 'report', 'prepare'},
  {'config'},
  {'sampling'},
  {'evaluation', 'sample'},
  {'training', 'evaluate'},
  {'main', 'plan', 'importers', 'figures', 'directions', 'blend'},
  {'project', 'study', 'exporters'},
  {'explore'},
)
VAGUE = {'utils', 'util', 'helpers', 'helper', 'misc', 'common'}
OUTSIDE = {'experiments', 'configs', 'tests'}


def allowed_imports() -> dict[str, set[str]]:
  """Package -> the packages it may import, '' being gan_jax/__init__.py."""
  allowed: dict[str, set[str]] = {}
  above: set[str] = set()
  for row in ORDER:
    allowed |= {package: {package} | above for package in row}
    above = above | row
  return allowed


ALLOWED = allowed_imports()


def module_of(path: Path, root: Path) -> str:
  """nn/norms.py -> 'nn', main.py -> 'main', __init__.py -> '', below root."""
  first = path.relative_to(root).parts[0].removesuffix('.py')
  return '' if first == '__init__' else first


def imported_names(tree: ast.AST, package: list[str]):
  """Yields (line, dotted name) of every import, wherever in the file it stands."""
  for node in ast.walk(tree):
    match node:
      case ast.Import():
        for alias in node.names:
          yield node.lineno, alias.name
      case ast.ImportFrom():
        up = len(package) - node.level + 1
        parts = package[:up] if node.level else []
        base = '.'.join([*parts, *([node.module] if node.module else [])])
        for alias in node.names:
          yield node.lineno, f'{base}.{alias.name}'
      case ast.Call(
        func=ast.Attribute(attr='import_module')
        | ast.Name(id='import_module' | '__import__'),
        args=[ast.Constant(value=str(name)), *_],
      ):
        yield node.lineno, name


def complaints(root: Path) -> list[str]:
  """One sentence for each thing in the package at `root` that breaks the rules."""
  files = sorted(root.rglob('*.py'))
  modules = {module_of(path, root) for path in files}
  found = []
  for path in files:
    where = path.relative_to(root.parent)
    own = module_of(path, root)
    tree = ast.parse(path.read_text(), str(path))
    if not ast.get_docstring(tree):
      found.append(f'{where}: say in a module docstring what it is for.')
    if vague := VAGUE & {part.removesuffix('.py') for part in where.parts}:
      found.append(f'{where}: {vague.pop()} is no name; name it after what it holds.')
      continue
    if own not in ALLOWED:
      found.append(f'{where}: give {own} a place in the order of architecture_test.py.')
      continue
    package = list(path.relative_to(root.parent).parent.parts)
    for line, name in imported_names(tree, package):
      top, _, rest = name.partition('.')
      if top in OUTSIDE:
        found.append(f'{where}:{line}: the library does not import {top}.')
      if top != root.name:
        continue
      seen = rest.partition('.')[0]
      if seen not in ALLOWED and seen not in modules:
        seen = ''  # a name of gan_jax/__init__.py
      if seen not in ALLOWED[own] and not own == seen != '':
        found.append(
          f'{where}:{line}: {own or "__init__"} may not import {seen or root.name}.'
        )
  return found


def test_the_package_keeps_the_order():
  found = complaints(ROOT)
  assert not found, '\n' + '\n'.join(found)


@pytest.mark.parametrize(
  'file, source, complaint',
  [
    ('nn/layers.py', 'from gan_jax import UserError, ops', None),
    ('models/base.py', 'from . import biggan\nfrom .. import nn', None),
    ('training/trainer.py', 'from gan_jax import sampling\nimport gan_jax.data', None),
    ('plan/flops.py', 'from gan_jax.training.step import train_step', None),
    ('nn/layers.py', 'from gan_jax import models', 'nn may not import models'),
    ('nn/layers.py', 'import gan_jax.data as d', 'nn may not import data'),
    ('nn/layers.py', 'from ..models import run', 'nn may not import models'),
    (
      'sampling/io.py',
      'from ..training import fit',
      'sampling may not import training',
    ),
    ('ops/step.py', 'def f():\n  from gan_jax import nn', 'ops may not import nn'),
    ('ops/step.py', "import_module('gan_jax.nn')", 'ops may not import nn'),
    ('ops/step.py', 'from gan_jax import UserError', 'ops may not import gan_jax'),
    ('storage/a.py', 'from gan_jax import data', 'storage may not import data'),
    ('plan/a.py', 'from gan_jax import main', 'plan may not import main'),
    ('main.py', 'from gan_jax import plan', 'main may not import plan'),
    ('__init__.py', 'from gan_jax import nn', '__init__ may not import nn'),
    ('main.py', 'from configs import biggan_emoji', 'does not import configs'),
    ('extra.py', '', 'give extra a place in the order'),
    ('nn/utils.py', '', 'utils is no name'),
  ],
)
def test_what_the_check_sees(tmp_path, file, source, complaint):
  root = tmp_path / 'gan_jax'
  for name in ('nn/layers.py', 'models/base.py', 'data/loader.py', file):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text('"""What it is for."""\n')
  with (root / file).open('a') as f:
    f.write(source)
  found = complaints(root)
  assert len(found) == (complaint is not None), found
  assert complaint is None or complaint in found[0]


def test_a_missing_docstring_is_seen(tmp_path):
  (tmp_path / 'gan_jax').mkdir()
  (tmp_path / 'gan_jax' / 'nn.py').write_text('x = 1\n')
  assert 'docstring' in complaints(tmp_path / 'gan_jax')[0]


def test_there_are_at_most_twelve_rows_and_ten_packages_besides_the_commands():
  assert len(ORDER) <= 12
  commands = {command.module.split('.')[1] for command in COMMANDS.values()}
  packages = {module_of(path, ROOT) for path in ROOT.rglob('*.py')} - commands - {''}
  assert len(packages) <= 10, sorted(packages)
  entries = {path.stem for path in ROOT.iterdir()} - {'__pycache__', '__init__', 'py'}
  assert entries == packages | commands, sorted(entries ^ (packages | commands))


def test_functions_fit_a_screen():
  long = []
  for path in sorted(ROOT.rglob('*.py')):
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.FunctionDef) and 'parser' not in node.name:
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        if lines > 60:
          long.append(f'{path.relative_to(ROOT)}: {node.name} has {lines} lines')
  assert not long, '\n' + '\n'.join(long)
