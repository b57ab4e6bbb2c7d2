"""Flags from dataclass fields: types, defaults, choices, and the way back."""

import argparse
import dataclasses
from pathlib import Path

import pytest

from gan_jax.runtime.flags import add_flags, flag, parsed_flags, path, to_flags


@dataclasses.dataclass(frozen=True)
class Options:
  steps: int = flag(3, 'number of steps', metavar='N')
  psi: float = flag(1.0, 'scale of z')
  seed: int | None = flag(None, 'of the noise')
  kind: str | None = flag(None, 'of interpolation', choices=('z', 'w'))
  grid: bool = flag(False, 'classes as rows')
  move: str = flag('', 'directions', joined=True)
  internal: int = 5  # no flag


def parse(flags):
  parser = argparse.ArgumentParser()
  add_flags(parser, Options)
  return parsed_flags(Options, parser.parse_args(flags))


@pytest.mark.parametrize(
  'options',
  [
    Options(),
    Options(steps=0, psi=0.25, seed=0, kind='w', grid=True),
    Options(psi=float('inf'), seed=7),
  ],
)
def test_flags_and_options_are_inverse(options):
  assert parse(to_flags(options)) == options


def test_a_joined_flag_may_be_given_several_times():
  assert parse(['--move=a:1', '--steps=2', '--move=b,c']).move == 'a:1,b,c'
  assert parse(to_flags(Options(move='a,b'))).move == 'a,b'


def test_defaults_are_the_dataclass_defaults():
  assert parse([]) == Options() and to_flags(Options()) == []


@pytest.mark.parametrize('flags', [['--steps=x'], ['--kind=y'], ['--internal=1']])
def test_invalid_flags_are_refused(flags, capsys):
  with pytest.raises(SystemExit):
    parse(flags)
  assert flags[0].split('=')[0] in capsys.readouterr().err


def test_a_path_flag_expands_the_home_folder(monkeypatch):
  monkeypatch.setenv('HOME', '/home/ada')
  assert path('~/runs') == Path('/home/ada/runs')
  assert path('runs/~x') == Path('runs/~x')
  for text in ('', '~nobody-of-this-name/runs', 'gs://b/x', 'gs:/b/x', 'hdfs://b/x'):
    reason = 'path is needed|no such user|is a URL'
    with pytest.raises(argparse.ArgumentTypeError, match=reason):
      path(text)
