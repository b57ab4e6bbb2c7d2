"""The training command: mistakes are one sentence and leave with exit code 2."""

import pytest

from tests.runs import start_main


@pytest.mark.parametrize(
  'flags, words',
  [
    (('--workdir=x',), '--config is needed'),
    (('--config=configs/biggan_digits.py',), '--workdir=runs/biggan_digits'),
    (('--config=emoji', '--workdir=x'), 'did you mean configs/biggan_emoji.py?'),
    (
      ('--config=configs/biggan_digit.py', '--workdir=x'),
      'did you mean configs/biggan_digits.py?',
    ),
    (('--config=configs/biggan_digits.py:tini', '--workdir=x'), "no variant 'tini'"),
    (
      (
        '--config=configs/biggan_digits.py',
        '--workdir=x',
        '--config.schedule.batches=3',
      ),
      'batch',
    ),
    (('--config=configs/biggan_digits.py', '--workdir=x', '--wrkdir=y'), 'workdir'),
    (('--config=configs/biggan_digits.py', '--workdir=x', 'y'), "'y' is not a flag"),
    (
      ('--config=configs/biggan_digits.py', '--workdir=x', '--config.log.ring=1'),
      'log.ring is now log.keep_periodic',
    ),
    (
      ('--config=configs/biggan_digits.py', '--workdir=x', '--config.model.res=48'),
      'model.res is 48',
    ),
  ],
)
def test_mistakes_on_the_command_line_are_one_sentence(flags, words):
  process = start_main(*flags)
  _, err = process.communicate(timeout=60)
  assert process.returncode == 2, err
  assert words in err and 'Traceback' not in err, err
  assert len(err.strip().splitlines()) == 1, err


def test_without_flags_it_prints_an_example_and_help_is_a_manual_page():
  process = start_main()
  _, err = process.communicate(timeout=60)
  assert process.returncode == 2
  command = '--config=configs/biggan_emoji.py --workdir=runs/emoji'
  assert command in err and 'Traceback' not in err
  process = start_main('--help')
  out, _ = process.communicate(timeout=60)
  assert 'SYNOPSIS' in out and 'EXIT STATUS' in out and '--peer_timeout' in out
