"""Multi-process jobs: joining one, ending together, and errors that all share."""

import contextlib
import itertools
import os
import re
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax._src import distributed as jax_distributed
from jax.experimental import multihost_utils

from gan_jax.runtime import local_devices
from gan_jax.runtime.errors import UserError, passing_errno
from gan_jax.runtime.joining import announced, describe_wait, detected_wait, resolve

_SENTENCE_BYTES = 2048  # of a UserError that is sent to the other processes
_WEEK_MS = 7 * 24 * 3600 * 1000
_barrier_number = itertools.count()  # the name of a barrier can be used once


def join(job: str, peer_timeout: int, join_timeout: int = 300) -> None:
  """Connects this process to the others of its job; if one is lost, all end.

  While it waits for the others, it says so; after `join_timeout` the process ends.

  Args:
    job: 'auto' on TPU pods, SLURM and GKE, else
      'HOST:PORT,NUM_PROCESSES,PROCESS_ID'.
    peer_timeout: seconds without a heartbeat after which another process is lost.
    join_timeout: seconds to wait for the other processes.

  Raises:
    UserError: `job` has another form, its host cannot be resolved, or it is 'auto'
      where there is no cluster; the tasks of this node cannot share its GPUs evenly.
  """
  settings: Any = dict(
    heartbeat_timeout_seconds=peer_timeout,
    shutdown_timeout_seconds=peer_timeout,
    initialization_timeout=join_timeout + 60,  # `announced` ends the process before
  )
  address = parse_job(job) if job != 'auto' else ()
  gpus = local_devices.installed_gpus()
  settings['local_device_ids'] = local_devices.local_device_ids(os.environ, gpus)
  if address:
    wait = describe_wait(*address)
    resolve(address[0], wait)
    with announced(lambda: wait, join_timeout):
      jax.distributed.initialize(*address, **settings)
    return
  try:
    with announced(detected_wait, join_timeout):
      jax.distributed.initialize(**settings)
  except (ImportError, KeyError, TypeError, ValueError) as error:
    raise UserError(
      '--distributed=auto: no TPU pod, SLURM, Open MPI or Kubernetes job was found '
      f'({error}): give HOST:PORT,NUM_PROCESSES,PROCESS_ID, or leave out the flag to '
      'train with one process.'
    ) from error


def parse_job(job: str) -> tuple[str, int, int]:
  """'HOST:PORT,NUM_PROCESSES,PROCESS_ID' -> (address, number of processes, own one).

  Raises:
    UserError: `job` has another form.
  """
  match = re.fullmatch(r'([^,\s]+):(\d{1,5}),(\d+),(\d+)', job)
  if not match:
    raise UserError(
      f'--distributed={job}: allowed are auto and HOST:PORT,NUM_PROCESSES,PROCESS_ID, '
      'such as 10.0.0.1:9876,4,0.'
    )
  host, port, count, index = match[1], *map(int, match.groups()[1:])
  if not 0 < port < 65536:
    raise UserError(f'--distributed={job}: {port} is no port; allowed are 1 to 65535.')
  if not index < count:
    raise UserError(
      f'--distributed={job}: process {index} of {count} does not exist; processes are '
      'numbered from 0.'
    )
  return f'{host}:{port}', count, index


def own_name() -> str:
  """'process 3 of 64', or 'this process' if it is the only one."""
  if jax.process_count() == 1:
    return 'this process'
  return f'process {jax.process_index()} of {jax.process_count()}'


def exchange(name: str, text: str) -> list[str]:
  """Publishes a text; process 0 gets the latest text of each process, '' for none yet.

  It goes through the coordinator of the job, not through the devices, and waits for no
  process. Other processes get their own text only.
  """
  client = jax_distributed.global_state.client
  if client is None or jax.process_count() == 1:
    return [text]
  client.key_value_set(f'{name}/{jax.process_index()}', text, allow_overwrite=True)
  if jax.process_index() != 0:
    return [text]
  texts = [''] * jax.process_count()
  for key, value in client.key_value_dir_get(f'{name}/'):
    texts[int(key.rpartition('/')[2])] = value
  return texts


@contextlib.contextmanager
def shared_errors() -> Iterator[None]:
  """A UserError of any process in the block is raised on all. Collective.

  Otherwise the other processes would wait for that one, and then end with a code that
  asks for a restart. One process may take longer than others, however long: for a lost
  one the coordinator ends the wait.
  """
  error = None
  try:
    yield
  except UserError as raised:
    error = raised
  if jax.process_count() > 1:
    await_others()
    own = np.zeros(_SENTENCE_BYTES, np.uint8)
    sentence = np.frombuffer(str(error or '').encode()[: _SENTENCE_BYTES - 1], np.uint8)
    own[0], own[1 : 1 + len(sentence)] = passing_errno(error), sentence
    sentences = np.asarray(multihost_utils.process_allgather(own))
    for process, (number, *text) in enumerate(sentences.tolist()):
      if error is None and any(text):
        words = bytes(text).rstrip(b'\0').decode(errors='ignore')
        error = UserError(f'process {process}: {words}')
        error.__cause__ = OSError(number, os.strerror(number)) if number else None
  if error is not None:
    raise error


def await_others() -> None:
  """Returns when all processes have called it. Collectives wait 30 s only, on CPUs."""
  client = jax_distributed.global_state.client
  if client is not None:
    name = f'gan_jax await_others {next(_barrier_number)}'
    client.wait_at_barrier(name, timeout_in_ms=_WEEK_MS)


def leave() -> None:
  """Waits until all processes of the job leave, or for the peer timeout.

  Those that are still there would report the first as lost.
  """
  if jax.distributed.is_initialized():
    with contextlib.suppress(RuntimeError):
      jax.distributed.shutdown()
