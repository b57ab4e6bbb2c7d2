"""Which GPUs a task of a SLURM or Open MPI job trains on.

JAX gives each task of such a job the GPU of the task's number on its node: one task
with four GPUs would train on one of them, and a task that SLURM binds to its own GPU
would look for another one.
"""

import glob
import re
from collections.abc import Mapping

from gan_jax.runtime.errors import UserError

_VISIBLE = ('CUDA_VISIBLE_DEVICES', 'ROCR_VISIBLE_DEVICES')
_BOUND = ('SLURM_GPUS_PER_TASK', 'SLURM_TRES_PER_TASK')


def local_device_ids(environ: Mapping[str, str], installed: int) -> list[int] | None:
  """Numbers of this task's GPUs among those that it sees; None: as JAX does.

  The tasks of a node share its GPUs evenly, unless SLURM has bound each to its own.

  Args:
    environ: environment variables of the task.
    installed: number of GPUs of the node, which count where no variable names those
      that the task sees.

  Raises:
    UserError: the tasks of this node cannot share its GPUs evenly.
  """
  if 'JAX_LOCAL_DEVICE_IDS' in environ:
    return None
  gpus = visible_gpus(environ, installed)
  task, tasks, launcher, flag = _place(environ)
  if not gpus or not tasks:
    return None
  on_node = int(environ.get('SLURM_GPUS_ON_NODE') or gpus)
  bound = gpus == 1 or gpus < on_node or any(name in environ for name in _BOUND)
  if bound:
    return list(range(gpus))
  if gpus % tasks:
    raise UserError(
      f'--distributed: {launcher} started {tasks} tasks on a node, which cannot share '
      f'its {gpus} GPUs evenly: start one task per GPU, {flag.format(gpus)}, or one '
      f'for all of them, {flag.format(1)}; JAX_PLATFORMS=cpu trains on the CPU.'
    )
  share = gpus // tasks
  return list(range(task * share, (task + 1) * share))


def visible_gpus(environ: Mapping[str, str], installed: int) -> int:
  """Number of GPUs that JAX can use in this process."""
  platforms = environ.get('JAX_PLATFORMS', '')
  if platforms and not re.search('cuda|gpu|rocm', platforms):
    return 0
  for name in _VISIBLE:
    if name in environ:
      # The list ends at the first entry that is no device: -1, or SLURM's NoDevFiles.
      found = re.match(r'(?:(?:\d+|GPU-[^,]+|MIG-[^,]+)(?:,|$))*', environ[name])
      return len([part for part in found[0].split(',') if part]) if found else 0
  return installed


def installed_gpus() -> int:
  """Number of NVIDIA GPUs of this machine."""
  return len(glob.glob('/dev/nvidia[0-9]*'))


def _place(environ: Mapping[str, str]) -> tuple[int, int, str, str]:
  """(number of this task on its node, tasks there or 0, launcher, its flag)."""
  if 'OMPI_COMM_WORLD_LOCAL_RANK' in environ:
    task = int(environ['OMPI_COMM_WORLD_LOCAL_RANK'])
    tasks = int(environ.get('OMPI_COMM_WORLD_LOCAL_SIZE', 0))
    return task, tasks, 'mpirun', '--map-by ppr:{}:node'
  # Such as 2(x3),1: two tasks on each of three nodes, then one.
  counts = []
  for part in environ.get('SLURM_STEP_TASKS_PER_NODE', '').split(','):
    if match := re.fullmatch(r'(\d+)(?:\(x(\d+)\))?', part):
      counts += [int(match[1])] * int(match[2] or 1)
  node = int(environ.get('SLURM_NODEID', 0))
  tasks = counts[node] if node < len(counts) else 0
  task = int(environ.get('SLURM_LOCALID', 0))
  return task, tasks, 'SLURM', '--ntasks-per-node={}'
