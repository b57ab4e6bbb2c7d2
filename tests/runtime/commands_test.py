"""The console command: the list, a wrong name, and the same run as `python -m`."""

import subprocess
import sys
from pathlib import Path

import pytest

import gan_jax
from gan_jax.runtime import commands
from gan_jax.runtime.commands import COMMANDS

ROOT = Path(__file__).parents[2]


def start(monkeypatch, *argv):
  monkeypatch.setattr(sys, 'argv', ['gan_jax', *argv])
  commands.main()


def test_the_list_has_a_line_for_each_command(monkeypatch, capsys):
  for flag in ('--help', '-h', 'help'):
    start(monkeypatch, flag)
    out = capsys.readouterr().out
    lines = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert set(COMMANDS) <= set(lines)
    assert all(len(lines[name]) <= 88 for name in COMMANDS)
  assert list(COMMANDS) == [
    'train',
    'sample',
    'evaluate',
    'figures',
    'directions',
    'project',
    'blend',
    'prepare',
    'plan',
    'study',
    'report',
    'explore',
    'import',
    'export',
  ]
  with pytest.raises(SystemExit) as exit:
    start(monkeypatch)
  assert exit.value.code == 2 and 'usage: gan_jax' in capsys.readouterr().err


def test_version(monkeypatch, capsys):
  start(monkeypatch, '--version')
  assert capsys.readouterr().out == f'gan_jax {gan_jax.__version__}\n'


@pytest.mark.parametrize(
  'name, words',
  [
    ('trian', "no command 'trian' (did you mean 'train'?): commands are train, sample"),
    ('importers', "did you mean 'import'?"),
    ('main', "did you mean 'train'?"),
    ('--config=x', "no command '--config=x': commands are"),
  ],
)
def test_a_wrong_command_is_one_sentence(monkeypatch, capsys, name, words):
  with pytest.raises(SystemExit) as exit:
    start(monkeypatch, name)
  err = capsys.readouterr().err
  assert exit.value.code == 2 and words in err and len(err.splitlines()) == 1


def test_a_command_runs_as_main_with_its_name_in_the_usage(monkeypatch, capsys):
  monkeypatch.setattr(commands.Started, 'by_console', False)
  assert commands.program_name('gan_jax.report') == 'python -m gan_jax.report'
  monkeypatch.setattr(sys, 'path', list(sys.path))
  monkeypatch.delitem(sys.modules, 'gan_jax.report.__main__', raising=False)
  with pytest.raises(SystemExit) as exit:
    start(monkeypatch, 'report', '--help')
  out = capsys.readouterr().out
  assert exit.value.code == 0 and out.startswith('usage: gan_jax report [-h]')
  monkeypatch.delitem(sys.modules, 'gan_jax.report.__main__', raising=False)
  with pytest.raises(SystemExit) as exit:
    start(monkeypatch, 'report', '--outt=x', 'runs/x')
  err = capsys.readouterr().err
  assert exit.value.code == 2 and err == (
    "error: there is no flag --outt (did you mean '--out'?); "
    'gan_jax report --help lists the flags.\n'
  )


def test_the_list_does_not_import_jax():
  program = (
    'import sys; sys.argv = ["gan_jax", "--help"]; '
    'from gan_jax.runtime.commands import main; main(); '
    'assert not {"jax", "numpy"} & set(sys.modules), sorted(sys.modules)'
  )
  subprocess.run([sys.executable, '-c', program], cwd=ROOT, check=True, timeout=60)


def test_every_command_is_a_module_that_python_runs():
  for command in COMMANDS.values():
    path = ROOT / command.module.replace('.', '/')
    file = path / '__main__.py' if path.is_dir() else path.with_suffix('.py')
    assert "if __name__ == '__main__':" in file.read_text()
