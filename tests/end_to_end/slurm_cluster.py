"""A SLURM cluster with two nodes on this machine, for tests.

Each node is a slurmd in namespaces of its own: it has its own host name and its own
processes, which all end when the node is killed. Nodes share the network and the
disk. Takes root, and Debian's packages slurm-wlm and munge.
"""

import contextlib
import os
import re
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.runs import ROOT

NODES = ('n0', 'n1')
PROGRAMS = ('slurmctld', 'slurmd', 'sbatch', 'srun', 'munged', 'unshare')
# Two partitions of the same nodes: jobs of `high` preempt those of `low`.
# cred_expire is also how long a requeued job waits.
CONFIG = """
ClusterName=test
SlurmctldHost=head(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdTimeout=15
SlurmdParameters=config_overrides
KillWait=10
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=n0 NodeHostname=n0 NodeAddr=127.0.0.1 Port={ports[1]}
NodeName=n1 NodeHostname=n1 NodeAddr=127.0.0.1 Port={ports[2]}
PartitionName=low Nodes=ALL Default=YES PreemptMode=REQUEUE GraceTime=30 PriorityTier=1
PartitionName=high Nodes=ALL PreemptMode=OFF PriorityTier=10
"""


def missing() -> str:
  """Why no cluster can be started here, or ''."""
  absent = [name for name in PROGRAMS if not shutil.which(name, path=_path())]
  if absent:
    return f'not installed: {", ".join(absent)}'
  if os.geteuid() != 0:
    return 'takes root'
  allowed = subprocess.run(
    ['unshare', '--mount', '--uts', '--pid', '--fork', '--mount-proc', 'true'],
    capture_output=True,
    check=False,
  )
  return '' if allowed.returncode == 0 else 'namespaces are not allowed'


def _path() -> str:
  return f'{os.environ["PATH"]}:/usr/local/sbin:/usr/sbin:/sbin'


def _free_ports(count: int) -> list[int]:
  with contextlib.ExitStack() as stack:
    sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
    for s in sockets:
      s.bind(('127.0.0.1', 0))
    return [s.getsockname()[1] for s in sockets]


class Cluster:
  """The cluster's daemons and its commands.

  Attributes:
    folder: logs, state and the daemons' settings.
  """

  def __init__(self, folder: Path):
    self.folder = folder
    self._daemons: dict[str, subprocess.Popen] = {}
    self._env = {**os.environ, 'PATH': _path()}
    self._env['SLURM_CONF'] = str(folder / 'slurm.conf')
    self._env.pop('JAX_COMPILATION_CACHE_DIR', None)  # runs name a folder themselves

  def start(self) -> None:
    """Starts all daemons; returns when both nodes are idle."""
    for name in ('state', *NODES):
      (self.folder / name).mkdir()
    hosts = f'127.0.0.1 localhost head {" ".join(NODES)}\n'
    (self.folder / 'hosts').write_text(hosts)
    config = CONFIG.format(folder=self.folder, ports=_free_ports(3))
    (self.folder / 'slurm.conf').write_text(config.lstrip())
    key = self.folder / 'munge.key'
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(64))
    files = [
      f'--{name}={self.folder}/munge.{suffix}'
      for name, suffix in (
        ('key-file', 'key'),
        ('socket', 'socket'),
        ('pid-file', 'pid'),
        ('log-file', 'log'),
        ('seed-file', 'seed'),
      )
    ]
    self._start('munged', 'head', 'munged', '--foreground', '--force', *files)
    self._until(lambda: (self.folder / 'munge.socket').exists())
    self._start('slurmctld', 'head', 'slurmctld', '-D', '-i')
    for node in NODES:
      self.start_node(node)

  def start_node(self, node: str) -> None:
    """Starts a node; returns when it is idle."""
    self._start(node, node, 'slurmd', '-D', '-N', node)
    self.wait_for_idle(node)

  def wait_for_idle(self, nodes: str = ','.join(NODES)) -> None:
    """Waits until no job runs or ends on nodes."""
    states = ['sinfo', '--noheader', f'--nodes={nodes}', '--format=%T']
    self._until(lambda: set(self.run(*states, check=False).split()) == {'idle'})

  def kill_node(self, node: str) -> None:
    """All processes of a node are gone at once."""
    self._daemons[node].kill()  # the first process of the node dies with it
    self._daemons[node].wait()

  def stop(self) -> None:
    for daemon in self._daemons.values():
      daemon.kill()  # and with it all processes of its namespace
      daemon.wait()

  def run(self, *command: str, check: bool = True, **env: str) -> str:
    """What a command of SLURM prints."""
    done = subprocess.run(
      command,
      cwd=ROOT,
      env={**self._env, **env},
      capture_output=True,
      text=True,
      timeout=60,
      check=False,
    )
    assert not check or done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout.strip()

  def job(self, number: str) -> dict[str, str]:
    """The fields of `scontrol show job`, such as JobState and Restarts."""
    fields = self.run('scontrol', '--oneliner', 'show', 'job', number)
    return dict(re.findall(r'(\w+)=(\S*)', fields))

  def wait_for_state(self, number: str, *states: str, seconds: float = 180) -> None:
    """Waits until a job is in one of `states`."""
    self._until(lambda: self.job(number)['JobState'] in states, seconds, number)

  def _start(self, name: str, host: str, *command: str) -> None:
    """Starts a daemon with its own host name, /etc/hosts and processes."""
    prepare = (
      'hostname "$1" && mount --bind "$2" /etc/hosts && shift 2 && "$@"; exit $?'
    )
    namespaces = ['--mount', '--uts', '--pid', '--fork', '--kill-child', '--mount-proc']
    with (self.folder / f'{name}.out').open('a') as log:
      self._daemons[name] = subprocess.Popen(
        ['unshare', *namespaces, 'sh', '-c', prepare, 'sh', host]
        + [str(self.folder / 'hosts'), *command],
        env=self._env,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
      )

  def _until(self, condition, seconds: float = 30, job: str = '') -> None:
    limit = time.monotonic() + seconds
    while not condition():
      assert time.monotonic() < limit, (self.job(job) if job else '', self.logs())
      time.sleep(0.2)

  def logs(self) -> str:
    """The ends of all logs."""
    files = sorted([*self.folder.glob('*.log'), *self.folder.glob('*.out')])
    return '\n'.join(f'{f.name}: {f.read_text()[-2000:]}' for f in files)


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
  """A cluster with two idle nodes, whose files are in `folder`."""
  running = Cluster(folder)
  try:
    running.start()
    yield running
  finally:
    running.stop()
