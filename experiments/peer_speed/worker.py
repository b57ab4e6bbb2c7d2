"""The protocol of a worker process: a command a line on stdin, JSON lines on stdout.

First the worker says hello:

  {"side": ..., "version": ..., "compile_s": ..., "g_params": ..., "d_params": ...}

Then it answers, each with a line:

  train N    N training iterations, each a D and a G step: {"wall": s, "cpu": s}
  sample N   N times SAMPLES pictures, as uint8 in memory: {"wall": s, "cpu": s}
  matmul N   the fastest of N float32 products of 2048 x 2048: {"gflops": ...}
  memory     the largest resident size so far: {"peak_mib": ...}
  check FILE what one iteration from the weights in FILE gives: {"d_loss": ..., ...}
  parts      what the parts of an iteration take: {part: seconds}

It ends with its stdin. An outside command needs train, sample and memory; of its hello,
only `side`.
"""

import json
import re
import sys
import time
from pathlib import Path
from typing import Any

PRODUCT = 2048


def serve(side: Any) -> None:
  """Answers for `side`, an object with `hello` and a method for each command."""
  answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer

  def say(line: dict) -> None:
    print(json.dumps(line), file=answers, flush=True)

  say(side.hello)
  for line in sys.stdin:
    command, *rest = line.split()
    if command in ('train', 'sample'):
      say(timed(getattr(side, command), int(rest[0])))
    elif command == 'matmul':
      times = [timed(side.matmul)['wall'] for _ in range(1 + int(rest[0]))]
      say({'gflops': 2 * PRODUCT**3 / min(times[1:]) / 1e9})
    elif command == 'memory':
      status = Path('/proc/self/status').read_text()  # ru_maxrss begins with a parent's
      say({'peak_mib': int(re.search(r'VmHWM:\s+(\d+)', status)[1]) / 1024})
    else:
      say(getattr(side, command)(*rest))


def timed(do: Any, *args: Any) -> dict[str, float]:
  wall, cpu = time.perf_counter(), time.process_time()  # the CPU time of all threads
  do(*args)
  return {'wall': time.perf_counter() - wall, 'cpu': time.process_time() - cpu}
