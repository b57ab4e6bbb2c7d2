"""The console command `gan_jax`: `gan_jax train ...` is `python -m gan_jax.main ...`.

A subcommand is run by name, as `python -m` runs its module, so that both behave the
same and the list of commands needs no jax.
"""

import runpy
import sys
from typing import NamedTuple

from gan_jax.runtime.errors import UserError, did_you_mean, run_command


class Command(NamedTuple):
  """A subcommand."""

  module: str
  summary: str


COMMANDS = {
  'train': Command('gan_jax.main', 'trains a GAN, or resumes training'),
  'sample': Command('gan_jax.sample', 'writes images, grids and films; exports'),
  'evaluate': Command('gan_jax.evaluate', 'scores a run: FID, KID, precision, ...'),
  'figures': Command('gan_jax.figures', "draws the papers' figures from a run"),
  'directions': Command('gan_jax.directions', 'finds directions in latent space'),
  'project': Command('gan_jax.project', 'finds latents of given images'),
  'blend': Command('gan_jax.blend', 'blends two generators by resolution'),
  'prepare': Command('gan_jax.prepare', 'turns images into a training set'),
  'plan': Command('gan_jax.plan', 'predicts memory, step time and cost on a TPU'),
  'study': Command('gan_jax.study', 'plans and trains a grid of runs, on one page'),
  'report': Command('gan_jax.report', 'writes the page of one run or of several'),
  'explore': Command('gan_jax.explore', 'opens a generator in the browser'),
  'import': Command('gan_jax.importers', 'turns published weights into a run'),
  'export': Command('gan_jax.exporters', "writes a run's weights by official names"),
}


class Started:
  """How this process was started."""

  by_console: bool = False


def program_name(module: str) -> str:
  """'gan_jax train' or 'python -m gan_jax.main', as this process was started."""
  names = {command.module: name for name, command in COMMANDS.items()}
  if Started.by_console and module in names:
    return f'gan_jax {names[module]}'
  return f'python -m {module}'


def overview() -> str:
  """The list of subcommands, one line each."""
  lines = [f'  {name:12}{command.summary}' for name, command in COMMANDS.items()]
  return '\n'.join(
    [
      'usage: gan_jax COMMAND [FLAGS]',
      '',
      'ProGAN, StyleGAN and BigGAN in JAX.',
      '',
      *lines,
      '',
      'To begin: gan_jax train --config=biggan_emoji --workdir=runs/emoji',
      'Each command has --help; gan_jax --version prints the version.',
    ]
  )


def run(argv: list[str]) -> None:
  """Runs the subcommand `argv[0]` with the remaining arguments.

  Raises:
    UserError: there is no such subcommand.
  """
  name = argv[0]
  if name not in COMMANDS:
    raise UserError(
      f'gan_jax has no command {name!r}{did_you_mean(name, COMMANDS)}: commands are '
      f'{", ".join(COMMANDS)}.'
    )
  Started.by_console = True
  sys.path.insert(0, '')  # as `python -m` does, for config files that import others
  sys.argv = [f'gan_jax {name}', *argv[1:]]
  runpy.run_module(COMMANDS[name].module, run_name='__main__', alter_sys=True)


def main() -> None:
  """The entry point of the console command."""
  argv = sys.argv[1:]
  if not argv:
    print(overview(), file=sys.stderr)
    sys.exit(2)
  if argv[0] in ('-h', '--help', 'help'):
    print(overview())
  elif argv[0] == '--version':
    print(f'gan_jax {sys.modules["gan_jax"].__version__}')
  else:
    run_command(lambda: run(argv))
