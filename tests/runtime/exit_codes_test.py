"""Exit codes against the rule of xpk; tests/launch_test.py has the schedulers."""

import re

from gan_jax.runtime.exit_codes import ExitCode, asks_for_restart
from tests.runs import ROOT

XPK = {42, *range(127, 256)}  # xpk restarts a workload on these, and on no other
RESTARTED = {ExitCode.STOPPED, ExitCode.INTERRUPTED, ExitCode.TRANSIENT}


def test_xpk_restarts_what_should_be_started_again():
  assert {code for code in range(256) if asks_for_restart(code)} == XPK
  assert {code for code in ExitCode if code in XPK} == RESTARTED
  signals = (-6, -9, -15)  # as Popen reports them: aborted, killed, terminated
  assert all(asks_for_restart(128 - number) for number in signals)


def test_the_table_of_codes_is_complete():
  text = (ROOT / 'docs' / 'reliability.md').read_text()
  listed = {int(code) for code in re.findall(r'^\| (\d+) \|', text, re.MULTILINE)}
  killed_by_sigint = {ExitCode.INTERRUPTED}  # in the line '128 + n'
  assert listed == set(ExitCode) - killed_by_sigint | {1}
