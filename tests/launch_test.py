"""The files of launch/: scripts run with stand-ins for what they call, YAML is parsed.

Every gan_jax command inside is parsed by the command's own parser.
"""

import os
import re
import shlex
import signal
import subprocess
import time

import pytest
import yaml

from gan_jax.runtime.distributed import parse_job
from gan_jax.runtime.exit_codes import ExitCode, asks_for_restart
from tests.docs_test import check_training_command
from tests.runs import ROOT

LAUNCH = ROOT / 'launch'
SCRIPTS = ['restart.sh', 'slurm.sbatch', 'tpu_queued_resource.sh']
RESTARTED = {code for code in range(256) if asks_for_restart(code)}
COMMAND = ['python', '-m', 'gan_jax.main', '--config=biggan_emoji', '--workdir=x y']


def stub(folder, name, body=''):
  """A program `name` that logs its arguments to the file 'calls'."""
  folder.mkdir(exist_ok=True)
  log = f'printf "%s\\n" "$(basename "$0") $*" >>{folder}/calls\n'
  (folder / name).write_text(f'#!/bin/bash\n{log}{body}\n')
  (folder / name).chmod(0o755)


def next_line(file):
  """Takes the first line of a file: bash, for stubs."""
  return f'line=$(head -1 {file}); sed -i 1d {file}\n'


def run(folder, *arguments, **environ):
  """(exit code, what the stubs of `folder` have been called with)."""
  done = subprocess.run(
    list(map(str, arguments)),
    env={'PATH': f'{folder}:/usr/bin:/bin', 'TMPDIR': str(folder), **environ},
    timeout=30,
    capture_output=True,
    text=True,
  )
  calls = folder / 'calls'
  return done.returncode, calls.read_text().splitlines() if calls.exists() else []


def check_command(words, job='auto'):
  """Asserts that `words` are a training command with `--distributed=job`."""
  assert words[:3] == ['python', '-m', 'gan_jax.main']
  assert f'--distributed={job}' in words
  check_training_command(words[3:])


def documents(name):
  return list(yaml.safe_load_all((LAUNCH / name).read_text()))


def test_every_file_is_tested_and_described():
  files = {path.name for path in LAUNCH.iterdir()}
  tested = {*SCRIPTS, 'jobset_gpu.yaml', 'jobset_tpu.yaml', 'skypilot.yaml'}
  assert files == {*tested, 'Dockerfile'}
  page = (ROOT / 'docs/pods.md').read_text()
  assert all(f'launch/{name}' in page for name in files)


@pytest.mark.parametrize('name', SCRIPTS)
def test_bash_accepts_the_script(name):
  subprocess.run(['bash', '-n', LAUNCH / name], check=True)
  assert (LAUNCH / name).read_text().startswith('#!/bin/bash\n')
  assert os.access(LAUNCH / name, os.X_OK) or name == 'slurm.sbatch'


@pytest.mark.parametrize('code', [0, 1, 2, 42, 130, 134, 137, 143, 250])
def test_the_slurm_script_requeues_by_the_code(tmp_path, code):
  stub(tmp_path, 'srun', f'exit {code}')
  stub(tmp_path, 'scontrol')
  script = LAUNCH / 'slurm.sbatch'
  returned, calls = run(tmp_path, 'bash', script, *COMMAND[3:], SLURM_JOB_ID='7')
  requeued = ['scontrol requeue 7'] if code in RESTARTED else []
  assert (returned, calls[1:]) == (code, requeued)
  assert calls[0].startswith('srun --kill-on-bad-exit=0 python -m gan_jax.main ')


def test_the_slurm_script_passes_its_arguments_on(tmp_path):
  stub(tmp_path, 'srun', f'printf "%s\\n" "$@" >{tmp_path}/words')
  run(tmp_path, 'bash', LAUNCH / 'slurm.sbatch', *COMMAND[3:])
  words = (tmp_path / 'words').read_text().splitlines()
  assert words[1:] == [*COMMAND, '--distributed=auto']
  check_command(words[1:])


def test_the_slurm_script_asks_for_what_it_relies_on():
  text = (LAUNCH / 'slurm.sbatch').read_text()
  options = ' '.join(re.findall('^#SBATCH (.*)', text, re.MULTILINE)).split()
  assert {'--requeue', '--signal=TERM@120', '--ntasks-per-node=1'} <= set(options)
  assert text[text.index('#SBATCH') :] in (ROOT / 'docs/pods.md').read_text()


@pytest.mark.parametrize('last', [0, 1, 2, 126])
def test_restart_ends_with_a_finished_run_or_a_mistake(tmp_path, last):
  (tmp_path / 'codes').write_text(f'42\n134\n137\n143\n250\n{last}\n')
  stub(tmp_path, 'python', next_line(tmp_path / 'codes') + 'exit $line')
  stub(tmp_path, 'sleep')
  returned, calls = run(tmp_path, LAUNCH / 'restart.sh', *COMMAND)
  assert returned == last
  assert calls == [' '.join(COMMAND), 'sleep 10'] * 5 + [' '.join(COMMAND)]


def test_restart_refuses_what_is_no_command(tmp_path):
  assert run(tmp_path, LAUNCH / 'restart.sh', 'no-such-command') == (2, [])
  assert run(tmp_path, LAUNCH / 'restart.sh') == (2, [])


@pytest.mark.parametrize(
  'number, command, name',
  [
    (signal.SIGTERM, 'python', 'TERM'),
    (signal.SIGINT, 'python', 'INT'),
    (signal.SIGTERM, 'mpirun', 'USR2'),  # at SIGTERM it kills its processes
    (signal.SIGINT, 'mpirun', 'USR2'),
  ],
)
def test_a_signal_to_restart_reaches_the_command_once_and_ends_the_loop(
  tmp_path, number, command, name
):
  saving = f'for i in 1 2 3 4 5; do sleep 0.1; done; exit {ExitCode.STOPPED}'
  handler = f'trap \'echo "{name}" >>{tmp_path}/signals; {saving}\' {name}'
  ready = f'touch {tmp_path}/ready; while true; do sleep 0.05; done'
  stub(tmp_path, command, f'{handler}\n{ready}')
  process = subprocess.Popen(
    # Tests that run in the background ignore Ctrl-C, and bash cannot trap it then.
    ['env', '--default-signal', LAUNCH / 'restart.sh', command],
    env={'PATH': f'{tmp_path}:/usr/bin:/bin'},
  )
  try:
    for _ in range(200):
      if (tmp_path / 'ready').exists():
        break
      time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(timeout=20) == ExitCode.STOPPED
  finally:
    process.kill()
    process.wait()
  assert (tmp_path / 'signals').read_text() == f'{name}\n'
  assert (tmp_path / 'calls').read_text() == f'{command} \n'


GCLOUD = """
case $* in
  *' describe '*) {state} echo "$line" ;;
  *' ssh '*) {code} [ "$line" != down ] || exit 255; echo "$line" ;;
  *' create '*) for word in "$@"; do case $word in --metadata-from-file=*)
    cp "${{word#*startup-script=}}" {folder}/startup ;; esac; done; {refusal} ;;
esac
"""


def run_tpu_script(tmp_path, states, codes, refusal='true'):
  """Runs the script; the resource has one state after the other, the workers' file
  `exit_code` one content after the other."""
  (tmp_path / 'states').write_text('\n'.join(states) + '\n')
  (tmp_path / 'worker').write_text('\n'.join(codes) + '\n')
  (tmp_path / 'setup.sh').write_text(f'export PATH={tmp_path}:$PATH\n')
  body = GCLOUD.format(
    folder=tmp_path,
    state=next_line(tmp_path / 'states'),
    code=next_line(tmp_path / 'worker'),
    refusal=refusal,
  )
  stub(tmp_path, 'gcloud', body)
  stub(tmp_path, 'sleep')
  names = {'NAME': 'gan', 'ZONE': 'z', 'TYPE': 'v5litepod-64', 'VERSION': 'v2'}
  script = LAUNCH / 'tpu_queued_resource.sh'
  code, calls = run(
    tmp_path, script, tmp_path / 'setup.sh', *COMMAND, '--distributed=auto', **names
  )
  verbs = [re.search(r'queued-resources (\w+)|(ssh)', c) for c in calls]
  return code, [v[1] or v[2] for v in verbs if v and v[1] != 'describe'], calls


def test_a_preempted_tpu_is_requested_anew_until_the_command_has_ended(tmp_path):
  states = [
    '',
    'WAITING_FOR_RESOURCES',
    'PROVISIONING',
    'ACTIVE',
    'ACTIVE',
    'SUSPENDED',
  ]
  states += ['', 'ACTIVE', 'ACTIVE', 'ACTIVE', 'ACTIVE']
  codes = ['', 'down', '42', '143', '', '0']
  code, verbs, calls = run_tpu_script(tmp_path, states, codes)
  first = ['create', 'ssh', 'ssh', 'delete']
  assert (code, verbs) == (0, [*first, 'create', *['ssh'] * 4, 'delete'])
  (create, _) = [call for call in calls if ' create ' in call]
  assert ' create gan --zone=z --quiet --node-id=gan ' in create
  assert '--accelerator-type=v5litepod-64 --runtime-version=v2 --spot ' in create
  assert all('--force' in call for call in calls if ' delete ' in call)


@pytest.mark.parametrize('code', [1, 2])
def test_a_mistake_ends_the_tpu_script_with_its_code(tmp_path, code):
  assert run_tpu_script(tmp_path, ['ACTIVE'], [str(code)])[:2] == (
    code,
    ['ssh', 'delete'],
  )


def test_a_request_that_is_refused_five_times_is_a_mistake(tmp_path):
  code, verbs, _ = run_tpu_script(tmp_path, [], [], refusal='exit 1')
  assert (code, verbs) == (ExitCode.USER_ERROR, ['create'] * 5)
  script = LAUNCH / 'tpu_queued_resource.sh'
  assert run(tmp_path / 'empty', 'bash', script)[0] == 1  # NAME is not set


def test_the_startup_script_of_a_tpu_worker_runs_the_command_until_it_ends(tmp_path):
  run_tpu_script(tmp_path, ['', 'ACTIVE'], ['0'])
  folder = tmp_path / 'worker folder'
  startup = (tmp_path / 'startup').read_text()
  quoted = shlex.quote(str(folder))
  (tmp_path / 'startup').write_text(startup.replace('/var/lib/gan_jax', quoted))
  (tmp_path / 'codes').write_text('137\n42\n2\n')
  words = f'printf "%s\\n" "$@" >{tmp_path}/words\n'
  stub(tmp_path, 'python', f'{words}{next_line(tmp_path / "codes")}exit $line')
  (tmp_path / 'calls').unlink()
  _, calls = run(tmp_path / 'none', 'bash', tmp_path / 'startup')
  assert (folder / 'exit_code').read_text() == '2\n'
  calls = (tmp_path / 'calls').read_text().splitlines()
  assert [call.split()[0] for call in calls] == ['python', 'sleep'] * 2 + ['python']
  words = (tmp_path / 'words').read_text().splitlines()
  assert ['python', *words] == [*COMMAND, '--distributed=auto']
  check_command(['python', *words])


@pytest.mark.parametrize('name', ['jobset_gpu.yaml', 'jobset_tpu.yaml'])
def test_a_jobset_restarts_on_the_codes_that_ask_for_it(name):
  jobset = documents(name)[-1]
  assert (jobset['apiVersion'], jobset['kind']) == (
    'jobset.x-k8s.io/v1alpha2',
    'JobSet',
  )
  assert jobset['metadata']['labels'] == {'kueue.x-k8s.io/queue-name': 'gan-jax'}
  policy = jobset['spec']['failurePolicy']
  assert policy['maxRestarts'] == 1000
  (rule,) = policy['rules']
  assert rule == {'action': 'FailJobSet', 'onJobFailureReasons': ['PodFailurePolicy']}
  (group,) = jobset['spec']['replicatedJobs']
  job = group['template']['spec']
  assert job['completionMode'] == 'Indexed' and job['backoffLimit'] == 0
  assert job['parallelism'] == job['completions'] > 1
  (rule,) = job['podFailurePolicy']['rules']
  assert rule['action'] == 'FailJob'
  assert set(rule['onExitCodes'].pop('values')) == RESTARTED
  assert rule['onExitCodes'] == {'containerName': 'train', 'operator': 'NotIn'}


@pytest.mark.parametrize(
  'name, device', [('jobset_gpu.yaml', 'nvidia.com/gpu'), ('jobset_tpu.yaml', 'google')]
)
def test_the_pods_of_a_jobset(name, device):
  job = documents(name)[-1]['spec']['replicatedJobs'][0]['template']['spec']
  pod = job['template']['spec']
  assert pod['restartPolicy'] == 'Never'  # podFailurePolicy needs it
  assert pod['terminationGracePeriodSeconds'] > 30
  (container,) = pod['containers']
  assert container['name'] == 'train'
  (limit,) = container['resources']['limits']
  assert limit.startswith(device)
  check_command(container['command'])
  mounted = {mount['name']: mount['mountPath'] for mount in container['volumeMounts']}
  assert mounted.keys() == {volume['name'] for volume in pod['volumes']}
  (workdir,) = [word for word in container['command'] if '--workdir=' in word]
  assert workdir.removeprefix('--workdir=').startswith(mounted['shared'] + '/')


def test_the_service_account_may_read_what_jax_reads():
  account, role, binding, jobset = documents('jobset_gpu.yaml')
  rights = {r: set(rule['verbs']) for rule in role['rules'] for r in rule['resources']}
  assert rights == {'pods': {'get', 'list'}, 'jobs': {'get'}}
  assert [rule['apiGroups'] for rule in role['rules']] == [[''], ['batch']]
  name = account['metadata']['name']
  namespaces = {d['metadata']['namespace'] for d in (account, role, binding, jobset)}
  (subject,) = binding['subjects']
  assert subject['name'] == name and namespaces == {subject['namespace']}
  assert binding['roleRef']['name'] == role['metadata']['name']
  job = jobset['spec']['replicatedJobs'][0]['template']['spec']
  assert job['template']['spec']['serviceAccountName'] == name


@pytest.mark.parametrize('rank', [0, 1])
def test_skypilot_gives_each_node_its_number(tmp_path, rank):
  (task,) = documents('skypilot.yaml')
  stub(tmp_path, 'python', f'printf "%s\\n" "$@" >{tmp_path}/words')
  variables = {
    'SKYPILOT_NODE_IPS': '10.0.0.5\n10.0.0.7',
    'SKYPILOT_NUM_NODES': str(task['num_nodes']),
    'SKYPILOT_NODE_RANK': str(rank),
  }
  run(tmp_path, 'bash', '-c', task['run'], **task['envs'], **variables)
  words = (tmp_path / 'words').read_text().splitlines()
  job = f'10.0.0.5:9876,2,{rank}'
  check_command(['python', *words], job)
  assert parse_job(job) == ('10.0.0.5:9876', 2, rank)
  assert f'--workdir={task["envs"]["WORKDIR"]}' in words


def test_skypilot_recovers_on_the_codes_that_ask_for_it():
  (task,) = documents('skypilot.yaml')
  recovery = task['resources']['job_recovery']
  assert set(recovery['recover_on_exit_codes']) == RESTARTED
  assert recovery['max_restarts_on_errors'] == 0
  assert task['num_nodes'] > 1 and ':' in task['resources']['accelerators']


def test_the_image_is_built_from_files_and_extras_that_exist():
  text = (LAUNCH / 'Dockerfile').read_text()
  copied = [
    name for line in re.findall('^COPY (.*) ', text, re.M) for name in line.split()
  ]
  assert {'gan_jax', 'configs', 'setup.cfg', 'requirements.txt'} <= set(copied)
  assert all((ROOT / name).exists() for name in copied)
  setup = (ROOT / 'setup.cfg').read_text()
  for extras in re.findall(r'EXTRAS=(\S+)', text):
    assert all(f'\n{extra} = ' in setup for extra in extras.split(','))
