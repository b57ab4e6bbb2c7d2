"""One of two processes, which process 1 stops by SIGTERM; prints where this one stops.

usage: stop_two_processes.py ADDRESS PROCESS_ID before|waiting

before: the signal arrives while a run is restored, before anything else is asked.
waiting: it arrives after three steps and a rollback, while a step compiles.
"""

import signal
import sys
import threading
import time
from concurrent.futures import Future

import jax

from gan_jax.training.preemption import PreemptionHandler, StoppedError

address, process, moment = sys.argv[1], int(sys.argv[2]), sys.argv[3]
jax.distributed.initialize(address, 2, process)
compiled: Future[str] = Future()
compiled.set_result('compiled')
where, steps = 'restored', 0


def send_signal():
  if process == 1:
    signal.raise_signal(signal.SIGTERM)


with PreemptionHandler(print) as preemption:
  try:
    if moment == 'before':
      send_signal()
      time.sleep(4)  # JAX looks for a signal each second, then the processes agree
    where = preemption.result(compiled)
    while steps < 3 and not preemption.requested():
      steps += 1
    if moment == 'waiting':
      threading.Timer(1, send_signal).start()
      where = preemption.result(Future())  # never compiled
    while steps < 20 and not preemption.requested():
      steps += 1
  except StoppedError:
    print('stopped', where, steps)
jax.distributed.shutdown()
