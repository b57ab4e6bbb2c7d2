"""Exit codes against the rule of xpk, and the scripts of docs/pods.md."""

import re
import subprocess

import pytest

from gan_jax.runtime.exit_codes import ExitCode, asks_for_restart
from tests.runs import ROOT

XPK = {42, *range(127, 256)}  # xpk restarts a workload on these, and on no other
RESTARTED = {ExitCode.STOPPED, ExitCode.INTERRUPTED, ExitCode.TRANSIENT}


def code_blocks(language, page='pods.md'):
  text = (ROOT / 'docs' / page).read_text()
  return re.findall(rf'^```{language}\n(.*?)^```', text, re.DOTALL | re.MULTILINE)


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


def run_script(script, tmp_path, codes):
  """Runs a script of the docs; `python` and `srun` end with one code after the other.

  Returns its exit code and what it has called.
  """
  calls, left = tmp_path / 'calls', tmp_path / 'codes'
  calls.write_text('')
  left.write_text(''.join(f'{code}\n' for code in codes))
  stub = '#!/bin/bash\n' + f'echo "$(basename "$0") $1" >> {calls}\n'
  train = f'code=$(head -1 {left}); sed -i 1d {left}; exit "$code"\n'
  for name in ('python', 'srun', 'scontrol', 'sleep'):
    (tmp_path / name).write_text(stub + (train if name in ('python', 'srun') else ''))
    (tmp_path / name).chmod(0o755)
  done = subprocess.run(
    ['bash', '-c', script],
    env={'PATH': f'{tmp_path}:/usr/bin:/bin', 'SLURM_JOB_ID': '7'},
    timeout=30,
  )
  return done.returncode, calls.read_text().splitlines()


@pytest.mark.parametrize('code', [0, 1, 2, 42, 130, 134, 137, 143, 250])
def test_the_slurm_script_requeues_by_the_code(tmp_path, code):
  (script,) = [text for text in code_blocks('bash') if 'srun' in text]
  returned, calls = run_script(script, tmp_path, [code])
  requeued = ['scontrol requeue'] if code in XPK else []
  assert (returned, calls) == (code, ['srun python', *requeued])


@pytest.mark.parametrize('last', [0, 1, 2])
def test_the_shell_loop_ends_with_a_finished_run_or_a_mistake(tmp_path, last):
  (script,) = [text for text in code_blocks('bash') if 'while' in text]
  _, calls = run_script(script, tmp_path, [42, 134, 137, 143, 250, last])
  assert calls == ['python -m', 'sleep 10'] * 5 + ['python -m']


def test_rules_for_kubernetes_and_skypilot_agree_with_xpk():
  texts = '\n'.join(code_blocks('yaml'))
  fail = re.search(r'operator: In, values: \[(.*?)\]', texts)
  assert {int(code) for code in fail[1].split(',')} == {1, ExitCode.USER_ERROR}
  recover = re.search(r'recover_on_exit_codes: \[(.*?)\]', texts)
  codes = {int(code) for code in recover[1].split(',')}
  assert codes < XPK and codes >= RESTARTED - {ExitCode.INTERRUPTED} | {134, 137, 143}
