"""Imports point downward, and every module says what it is for."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / 'gan_jax'

# A module may import those of the rows above its own. A package counts as one module.
ORDER = (
  {'winograd'},
  {'convolution'},
  {'resampling'},
  {'layers', 'losses', 'noise'},
  {'norms'},
  {'spectral'},
  {'gan'},
  {'growing'},
  {'progan', 'stylegan', 'biggan'},
  {'optim', 'schedule'},
  {'recipe'},
  {'step', 'workdir'},
  {'sampler', 'sheets', 'export'},
  {'request'},
  {'opened'},
  {'importers', 'sample', 'stages'},
  {'explore'},
  {'metrics'},
  {'evaluator', 'scores'},
  {'frontier'},
  {'evaluate'},
  {'watch'},
  {'journal'},
  {'showing'},
  {'train'},
  {'main'},
)
# Whatever the row, any module may import these.
BELOW = {'', 'atomic'}
# These import nothing else of gan_jax, and are there from this module's row on.
LEAVES = {'data', 'checkpoint', 'report', 'waiting'}
LEAVES_FROM = 'sampler'
# Commands beside the order, which no module imports, with all that each may see.
COMMANDS = {
  'prepare': {'data'},
  'plan': {
    *('winograd', 'convolution', 'resampling', 'layers', 'norms', 'spectral'),
    *('gan', 'growing', 'progan', 'stylegan', 'biggan', 'schedule', 'optim'),
    *('recipe', 'step'),
  },
}
VAGUE = {'utils', 'util', 'helpers', 'helper', 'misc', 'common'}
OUTSIDE = {'experiments', 'configs', 'tests'}


def allowed_imports() -> dict[str, set[str]]:
  """Module -> the modules it may import, '' being gan_jax/__init__.py."""
  allowed = {'': set(), 'atomic': set()}
  allowed |= dict.fromkeys(LEAVES, BELOW)
  below, leaves = BELOW, set()
  for row in ORDER:
    if LEAVES_FROM in row:
      leaves = LEAVES
    allowed |= {module: {module} | below | leaves for module in row}
    below = below | row
  allowed |= {command: BELOW | seen for command, seen in COMMANDS.items()}
  return allowed


ALLOWED = allowed_imports()


def module_of(path: Path, root: Path) -> str:
  """metrics/ppl.py -> 'metrics', step.py -> 'step', __init__.py -> '', below root."""
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
    ('gan.py', 'from gan_jax import UserError, layers', None),
    ('metrics/ppl.py', 'from . import images\nfrom .. import sample', None),
    ('train.py', 'from gan_jax import checkpoint, evaluate\nimport gan_jax.data', None),
    ('plan.py', 'from gan_jax.step import make_train_step', None),
    ('layers.py', 'from gan_jax import gan', 'layers may not import gan'),
    ('layers.py', 'import gan_jax.losses as L', 'layers may not import losses'),
    ('layers.py', 'from .gan import run', 'layers may not import gan'),
    ('metrics/ppl.py', 'from ..train import fit', 'metrics may not import train'),
    ('step.py', 'def f():\n  from gan_jax import train', 'step may not import train'),
    ('gan.py', "import_module('gan_jax.step')", 'gan may not import step'),
    ('step.py', 'import gan_jax.checkpoint', 'step may not import checkpoint'),
    ('data.py', 'from gan_jax import checkpoint', 'data may not import checkpoint'),
    ('plan.py', 'from gan_jax import train', 'plan may not import train'),
    ('train.py', 'from gan_jax import plan', 'train may not import plan'),
    ('__init__.py', 'from gan_jax import layers', '__init__ may not import layers'),
    ('main.py', 'from configs import biggan_emoji', 'does not import configs'),
    ('extra.py', '', 'give extra a place in the order'),
    ('metrics/utils.py', '', 'utils is no name'),
  ],
)
def test_what_the_check_sees(tmp_path, file, source, complaint):
  root = tmp_path / 'gan_jax'
  for name in ('layers.py', 'gan.py', 'metrics/images.py', file):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text('"""What it is for."""\n')
  with (root / file).open('a') as f:
    f.write(source)
  found = complaints(root)
  assert len(found) == (complaint is not None), found
  assert complaint is None or complaint in found[0]


def test_a_missing_docstring_is_seen(tmp_path):
  (tmp_path / 'gan_jax').mkdir()
  (tmp_path / 'gan_jax' / 'layers.py').write_text('x = 1\n')
  assert 'docstring' in complaints(tmp_path / 'gan_jax')[0]
