"""Reads every file of a folder and prints what that did to the process.

usage: read_under_audit.py FOLDER WARM_UP_FILE...

Prints the files read, the files rejected, the forbidden audit events and the peak
memory in kilobytes.
"""

import resource
import sys
from pathlib import Path

from gan_jax import UserError
from gan_jax.importers.sources import read_published

FORBIDDEN = (
  'os.system', 'os.exec', 'os.posix_spawn', 'os.fork', 'subprocess.Popen',
  'pickle.find_class', 'socket.connect', 'os.remove', 'shutil.rmtree',
)  # fmt: skip


def main(folder: str, *warm_up_files: str) -> None:
  resource.setrlimit(resource.RLIMIT_CPU, (400, 400))
  for path in warm_up_files:
    read_published(path)
  events = []

  def audit(event, args):
    writes = event == 'open' and set(str(args[1])) & set('wax+')
    if event in FORBIDDEN or writes:
      events.append((event, args))

  sys.addaudithook(audit)
  read = rejected = 0
  for path in sorted(Path(folder).iterdir()):
    try:
      read_published(path)
      read += 1
    except UserError as error:
      assert str(path) in str(error), (path, error)
      rejected += 1
  # Not ru_maxrss, which begins with the memory of the parent process.
  peak = Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0]
  print(read, rejected, len(events), peak)


if __name__ == '__main__':
  main(*sys.argv[1:])
