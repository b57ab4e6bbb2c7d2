"""GPUs of tasks under SLURM and Open MPI, by the variables that these set."""

import jax
import pytest

from gan_jax import UserError
from gan_jax.runtime import local_devices
from gan_jax.runtime.distributed import join
from gan_jax.runtime.local_devices import local_device_ids, visible_gpus


def slurm(task, tasks_per_node, gpus, node=0, **others):
  """Variables of a task of srun; GPUs as --gpus-per-node gives them."""
  return {
    'SLURM_LOCALID': str(task),
    'SLURM_NODEID': str(node),
    'SLURM_STEP_TASKS_PER_NODE': tasks_per_node,
    'SLURM_GPUS_ON_NODE': str(gpus),
    'CUDA_VISIBLE_DEVICES': ','.join(map(str, range(gpus))),
    **others,
  }


def mpirun(task, tasks):
  return {
    'OMPI_COMM_WORLD_LOCAL_RANK': str(task),
    'OMPI_COMM_WORLD_LOCAL_SIZE': str(tasks),
  }


@pytest.mark.parametrize(
  'environ, devices',
  [
    (slurm(0, '1(x2)', 4), [0, 1, 2, 3]),  # one task a node: all its GPUs
    (slurm(0, '1', 1), [0]),
    (slurm(2, '4(x2)', 4), [2]),  # one task per GPU
    (slurm(1, '2(x2)', 8), [4, 5, 6, 7]),
    (slurm(0, '4,1', 4, node=1), [0, 1, 2, 3]),  # nodes differ
    (slurm(1, '4(x2),2,1(x3)', 4, node=2), [2, 3]),
    # Each task sees its own GPUs alone: --gpus-per-task, --gpu-bind
    (slurm(3, '4', 4, CUDA_VISIBLE_DEVICES='3'), [0]),
    (slurm(3, '4', 1), [0]),
    (slurm(1, '2', 4, CUDA_VISIBLE_DEVICES='2,3'), [0, 1]),
    (slurm(1, '2', 2, SLURM_GPUS_PER_TASK='2'), [0, 1]),
    (slurm(1, '2', 2, SLURM_TRES_PER_TASK='gres/gpu:2'), [0, 1]),
    # GPUs that SLURM does not manage
    ({'SLURM_LOCALID': '0', 'SLURM_STEP_TASKS_PER_NODE': '1(x2)'}, list(range(8))),
    (mpirun(0, 1), list(range(8))),
    (mpirun(3, 4), [6, 7]),
    (mpirun(1, 2) | slurm(0, '1', 4), [2, 3]),  # mpirun inside an allocation
  ],
)
def test_the_gpus_of_a_task(environ, devices):
  assert local_device_ids(environ, installed=8) == devices


@pytest.mark.parametrize(
  'environ',
  [
    {},  # no launcher: JAX takes all
    slurm(0, '1', 4, JAX_LOCAL_DEVICE_IDS='1,2'),  # the user has chosen
    slurm(0, '3', 4, JAX_PLATFORMS='cpu'),
    slurm(0, '3', 0, CUDA_VISIBLE_DEVICES='NoDevFiles'),
    slurm(0, '3', 0, CUDA_VISIBLE_DEVICES=''),
    {'CUDA_VISIBLE_DEVICES': '0,1,2,3'},
    {'SLURM_LOCALID': '0', 'SLURM_STEP_TASKS_PER_NODE': '?'},
  ],
)
def test_otherwise_jax_decides(environ):
  assert local_device_ids(environ, installed=8) is None
  assert local_device_ids({**slurm(0, '2', 0), 'CUDA_VISIBLE_DEVICES': '-1'}, 0) is None


@pytest.mark.parametrize(
  'environ, words',
  [
    (
      slurm(0, '3', 4),
      'SLURM started 3 tasks on a node, which cannot share its 4 GPUs evenly: start '
      'one task per GPU, --ntasks-per-node=4, or one for all .*, --ntasks-per-node=1;',
    ),
    (slurm(5, '8(x2)', 4, node=1), 'SLURM started 8 tasks .* its 4 GPUs'),
    (mpirun(0, 3), 'mpirun started 3 .* 8 GPUs evenly: .* --map-by ppr:8:node'),
  ],
)
def test_tasks_that_cannot_share_are_a_mistake(environ, words):
  with pytest.raises(UserError, match=f'^--distributed: {words}'):
    local_device_ids(environ, installed=8)


@pytest.mark.parametrize(
  'visible, count',
  [('0', 1), ('2,3', 2), ('GPU-8a,MIG-1/2/3', 2), ('0,-1,1', 1), ('-1', 0), ('', 0)],
)
def test_the_list_of_visible_gpus_ends_at_what_is_no_gpu(visible, count):
  assert visible_gpus({'CUDA_VISIBLE_DEVICES': visible}, 8) == count
  assert visible_gpus({'ROCR_VISIBLE_DEVICES': visible}, 8) == count
  assert visible_gpus({'JAX_PLATFORMS': 'cuda,cpu'}, 8) == 8


@pytest.mark.parametrize('job', ['auto', '127.0.0.1:9876,2,0'])
def test_joining_takes_the_gpus_of_the_task(monkeypatch, job):
  given = {}
  monkeypatch.setattr(jax.distributed, 'initialize', lambda *_, **kw: given.update(kw))
  monkeypatch.setattr(local_devices, 'installed_gpus', lambda: 8)
  monkeypatch.delenv('JAX_PLATFORMS', raising=False)
  for name, value in slurm(1, '2(x2)', 4).items():
    monkeypatch.setenv(name, value)
  join(job, peer_timeout=60)
  assert given['local_device_ids'] == [2, 3]
