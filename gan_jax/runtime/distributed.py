"""Joining the other processes of a job."""

from typing import Any

import jax

from gan_jax.runtime.errors import UserError


def join(job: str, peer_timeout: int) -> None:
  """Connects this process to the others of its job; losing one of them ends all.

  Args:
    job: 'auto' on TPU pods, SLURM and GKE, else
      'HOST:PORT,NUMBER_OF_PROCESSES,MY_NUMBER'.
    peer_timeout: seconds of silence after which another process counts as lost.

  Raises:
    UserError: `job` has neither of the two forms.
  """
  timeouts: Any = dict(
    heartbeat_timeout_seconds=peer_timeout, shutdown_timeout_seconds=peer_timeout
  )
  if job == 'auto':
    jax.distributed.initialize(**timeouts)
    return
  try:
    address, count, number = job.split(',')
    num_processes, process_id = int(count), int(number)
  except ValueError:
    raise UserError(
      f'--distributed={job}: allowed are auto and HOST:PORT,NUMBER_OF_PROCESSES,'
      'MY_NUMBER.'
    ) from None
  jax.distributed.initialize(address, num_processes, process_id, **timeouts)
