"""The protocol of a worker: one command per line on stdin, JSON lines on stdout.

First the worker writes a greeting:

  {"side": ..., "version": ..., "compile_s": ..., "g_params": ..., "d_params": ...}

Then it answers each command with a line:

  train N    N training iterations, each a D and a G step: {"wall": s, "cpu": s}
  sample N   N times SAMPLES images, uint8 in memory: {"wall": s, "cpu": s}
  matmul N   the fastest of N float32 products of 2048 x 2048: {"gflops": ...}
  memory     the largest resident size so far: {"peak_mib": ...}
  check FILE metrics of one iteration from the weights in FILE: {"d_loss": ..., ...}
  parts      seconds of the parts of an iteration: {part: seconds}

It ends when stdin ends. Another command needs train, sample and memory only, and `side`
in its greeting.
"""

import json
import re
import sys
import time
from pathlib import Path
from typing import Any

PRODUCT = 2048


def serve(side: Any) -> None:
  """Serves `side`, an object with `hello` and one method per command."""
  answers, sys.stdout = sys.stdout, sys.stderr  # libraries print to stderr

  def answer(line: dict) -> None:
    print(json.dumps(line), file=answers, flush=True)

  answer(side.hello)
  for line in sys.stdin:
    command, *rest = line.split()
    if command in ('train', 'sample'):
      answer(timed(getattr(side, command), int(rest[0])))
    elif command == 'matmul':
      times = [timed(side.matmul)['wall'] for _ in range(1 + int(rest[0]))]
      answer({'gflops': 2 * PRODUCT**3 / min(times[1:]) / 1e9})
    elif command == 'memory':
      status = Path('/proc/self/status').read_text()  # ru_maxrss begins with a parent's
      answer({'peak_mib': int(re.search(r'VmHWM:\s+(\d+)', status)[1]) / 1024})
    else:
      answer(getattr(side, command)(*rest))


def timed(do: Any, *args: Any) -> dict[str, float]:
  wall, cpu = time.perf_counter(), time.process_time()  # the CPU time of all threads
  do(*args)
  return {'wall': time.perf_counter() - wall, 'cpu': time.process_time() - cpu}
