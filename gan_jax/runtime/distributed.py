"""Multi-process jobs."""

from typing import Any

import jax

from gan_jax.runtime.errors import UserError


def join(job: str, peer_timeout: int) -> None:
  """Connects this process to the others of its job; if one is lost, all end.

  Args:
    job: 'auto' on TPU pods, SLURM and GKE, else
      'HOST:PORT,NUM_PROCESSES,PROCESS_ID'.
    peer_timeout: seconds without a heartbeat after which another process is lost.

  Raises:
    UserError: `job` has another form.
  """
  timeouts: Any = dict(
    heartbeat_timeout_seconds=peer_timeout, shutdown_timeout_seconds=peer_timeout
  )
  if job == 'auto':
    jax.distributed.initialize(**timeouts)
    return
  try:
    address, count, index = job.split(',')
    num_processes, process_id = int(count), int(index)
  except ValueError:
    raise UserError(
      f'--distributed={job}: allowed are auto and HOST:PORT,NUM_PROCESSES,PROCESS_ID.'
    ) from None
  jax.distributed.initialize(address, num_processes, process_id, **timeouts)
