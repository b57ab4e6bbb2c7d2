"""Does gan_jax earn its GPU? See README.md beside this file."""

import argparse
import contextlib
import datetime
import importlib.metadata
import importlib.util
import json
import math
import os
import platform
import select
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gpu_cases import BATCHES, CASES, FAMILIES, flops

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PARTS = ('parity', 'speed', 'commands')
PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'numpy', 'torch')
VISIT_S = 0.5  # of one side, before the other one's turn
ENVIRONMENT = {
  'XLA_PYTHON_CLIENT_PREALLOCATE': 'false',  # both sides live on one GPU
  'PYTHONPATH': os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')]),
}

Row = dict[str, Any]


class FailedError(Exception):
  """A part or a worker did not do its work; the others go on."""


class Clock:
  """The time that is left."""

  def __init__(self, minutes: float):
    self._end = time.monotonic() + 60 * minutes

  @property
  def left(self) -> float:
    return self._end - time.monotonic()

  def check(self, needed: float) -> None:
    if self.left < needed:
      raise FailedError(f'out of time: {max(self.left, 0):.0f} s left')


class Worker:
  """A process that answers commands; see experiments/peer_speed/worker.py."""

  def __init__(self, command: Sequence[str], clock: Clock):
    self._clock, self._errors = clock, tempfile.TemporaryFile('w+')  # noqa: SIM115
    self._process = subprocess.Popen(
      command,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=self._errors,
      text=True,
      bufsize=1,
      env=os.environ | ENVIRONMENT,
    )

  def __enter__(self) -> 'Worker':
    return self

  def __exit__(self, *_: Any) -> None:
    self._process.kill()
    self._process.communicate()
    self._errors.close()

  def ask(self, command: str) -> Row:
    with contextlib.suppress(BrokenPipeError):  # the reason is read below
      print(command, file=self._process.stdin, flush=True)
    return self.answer()

  def answer(self) -> Row:
    """The next line of the worker, as long as there is time."""
    ready, _, _ = select.select(
      [self._process.stdout], [], [], max(self._clock.left, 0)
    )
    if not ready:
      raise FailedError('out of time')
    line = self._process.stdout.readline()
    if not line:
      self._process.wait()
      raise FailedError(self._reason())
    return json.loads(line)

  def _reason(self) -> str:
    self._errors.seek(0)
    lines = [line.strip() for line in self._errors if line.strip()]
    named = [line for line in lines if 'Error' in line or 'error:' in line]
    return (named or lines or ['it ended without a word'])[-1][:300]


# The timings.


def sides(case: Row, args: argparse.Namespace) -> Iterator[tuple[str, list[str]]]:
  """Name and command of each side: ours first."""
  about = ['--case', json.dumps(case)]
  yield 'ours', [sys.executable, str(HERE / 'ours.py'), *about, '--cache', args.cache]
  if args.torch:
    peer = [args.torch, str(HERE / 'theirs.py'), *about]
    yield 'eager', peer
    yield 'compiled', [*peer, '--compiled']


def time_case(
  name: str, case: Row, args: argparse.Namespace, clock: Clock
) -> list[Row]:
  """Rows of training and sampling: a time of each side that works, in turns."""
  training, per_image = flops(case)
  family, dtype = case['config']['model']['family'], case['dtype']
  row: Row = {'case': name, 'family': family, 'dtype': dtype, 'batch': case['batch']}
  with contextlib.ExitStack() as stack:
    workers = {
      side: stack.enter_context(Worker(command, clock))
      for side, command in sides(case, args)
    }
    hellos = {}
    for side in list(workers):
      try:
        hellos[side] = workers[side].answer()
      except FailedError as failure:
        row[f'{side}_failed'] = str(failure)
        del workers[side]
    if 'ours' not in workers:
      return [row | {'what': 'train'}]
    ours = hellos['ours']
    keys = ('device_kind', 'init_s', 'compile_s', 'predicted')
    row |= {key: ours[key] for key in keys}
    row['versions'] = [hello['version'] for hello in hellos.values()]
    rows = [measured(row | {'what': 'train'}, workers, 'train {n}', args, clock)]
    for side, worker in workers.items():
      rows[0][f'{side}_peak_gb'] = worker.ask('peak')['peak_gb']
      rows[0][f'{side}_first_s'] = hellos[side]['compile_s']
    finish(rows[0], case['batch'], training)
    for batch in BATCHES[:1] if args.tiny else BATCHES:
      one = row | {'what': f'sample {batch}', 'batch': batch}
      rows.append(measured(one, workers, f'images {batch} {{n}}', args, clock))
      finish(rows[-1], batch, batch * per_image)
  return rows


def measured(
  row: Row,
  workers: dict[str, Worker],
  command: str,
  args: argparse.Namespace,
  clock: Clock,
) -> Row:
  """The row with seconds of each side: medians over visits, in turns."""
  row, counts = dict(row), {}
  walls: dict[str, list[float]] = {side: [] for side in workers}
  for visit in range(args.visits + 1):
    for side in list(walls):
      n = counts.get(side, 1)
      try:
        clock.check(0)
        wall = workers[side].ask(command.format(n=n))['wall'] / n
      except FailedError as failure:
        row[f'{side}_failed'] = str(failure)
        del walls[side]
        continue
      if visit:
        walls[side].append(wall)
      else:
        counts[side] = max(1, math.ceil((0 if args.tiny else VISIT_S) / wall))
  for side, found in walls.items():
    if found:
      row[f'{side}_s'] = statistics.median(found)
  return row


def finish(row: Row, images: int, flop: float) -> None:
  """Adds images/s, TFLOP/s, MFU and the ratio to the faster of PyTorch's sides."""
  if 'ours_s' not in row:
    return
  row['images_per_s'] = images / row['ours_s']
  row['tflops'] = flop / row['ours_s'] / 1e12
  peak = row['predicted'].get('peak_flops')
  if peak and row['dtype'] == 'bfloat16':
    row['mfu'] = flop / row['ours_s'] / peak
  peers = [row[f'{side}_s'] for side in ('eager', 'compiled') if f'{side}_s' in row]
  if peers:
    row['ratio'] = row['ours_s'] / min(peers)


# Numbers and commands.


def run(command: Sequence[str], clock: Clock) -> str:
  """The output of a command.

  Raises:
    FailedError: it fails, or takes more than half of the time that is left.
  """
  clock.check(10)
  try:
    done = subprocess.run(
      command,
      env=os.environ | ENVIRONMENT,
      capture_output=True,
      text=True,
      timeout=clock.left / 2,
      cwd=ROOT,
    )
  except subprocess.TimeoutExpired as error:
    raise FailedError(f'no end after {error.timeout:.0f} s') from error
  if done.returncode:
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    raise FailedError((lines or [f'exit code {done.returncode}'])[-1][:300])
  return done.stdout


def check_numbers(args: argparse.Namespace, clock: Clock) -> list[Row]:
  """One step of each family against the CPU's, at the same time; see checks.py."""
  names = FAMILIES[:1] if args.tiny else FAMILIES
  check = lambda name: run([sys.executable, str(HERE / 'checks.py'), name], clock)
  with ThreadPoolExecutor() as pool:
    return [row for output in pool.map(check, names) for row in json.loads(output)]


def check_commands(args: argparse.Namespace, clock: Clock) -> list[Row]:
  """A run, resumed, exported, evaluated and explored: seconds, or why not."""
  del args
  python, rows = [sys.executable, '-m'], []
  with tempfile.TemporaryDirectory() as folder:
    workdir = f'--workdir={folder}/run'
    train = [*python, 'gan_jax.main', '--config=biggan_imagenet:tiny', workdir]
    exported = f'{folder}/gen.stablehlo'
    sample = [*python, 'gan_jax.sample']
    commands: dict[str, Callable[[], Any]] = {
      'train': lambda: run(train, clock),
      'resume': lambda: run([*train, '--config.train.images=64'], clock),
      'export': lambda: run([*sample, workdir, f'--export={exported}'], clock),
      'sample the export': lambda: run(
        [*sample, '--num=4', f'--program={exported}', f'--out={folder}/grid.png'],
        clock,
      ),
      'evaluate': lambda: run(
        [*python, 'gan_jax.evaluate', workdir, '--num=16', '--metrics=prdc_small'],
        clock,
      ),
      'explore': lambda: explore([*python, 'gan_jax.explore', workdir], clock),
    }
    for name, do in commands.items():
      start = time.perf_counter()
      row: Row = {'command': name}
      try:
        do()
      except FailedError as failure:
        row['failed'] = str(failure)
      rows.append(row | {'s': round(time.perf_counter() - start, 1)})
  return rows


def explore(command: Sequence[str], clock: Clock, port: int = 18099) -> None:
  """Starts the explorer, and loads its page once it is ready."""
  clock.check(10)
  process = subprocess.Popen(
    [*command, f'--port={port}'],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    env=os.environ | ENVIRONMENT,
    cwd=ROOT,
  )
  try:
    last = ''
    while True:
      ready, _, _ = select.select([process.stdout], [], [], max(clock.left, 0))
      line = process.stdout.readline() if ready else ''
      if not line:
        raise FailedError(last or 'out of time')
      last = line.strip()[:300] or last
      if line.startswith('ready:'):
        break
    url, attempts = f'http://127.0.0.1:{port}/', 40
    for attempt in range(attempts):  # it listens a moment after it says so
      try:
        with urllib.request.urlopen(url, timeout=20):
          break
      except OSError:
        if attempt == attempts - 1:
          raise
        time.sleep(0.5)
  except OSError as error:
    raise FailedError(f'{type(error).__name__}: {error}') from error
  finally:
    process.kill()
    process.wait()


# The table.


def versions(python: str) -> Row:
  """Of the packages on both sides, of Python and of the driver."""
  found: Row = {'python': platform.python_version()}
  for name in PACKAGES:
    try:
      found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      found[name] = None
  if python and python != sys.executable:
    about = [python, '-c', 'import torch; print(torch.__version__)']
    done = subprocess.run(about, capture_output=True, text=True)
    found['torch'] = done.stdout.strip() or None
  query = ['nvidia-smi', '--query-gpu=name,driver_version,memory.total']
  try:
    done = subprocess.run([*query, '--format=csv,noheader'], capture_output=True)
    found['gpu'] = done.stdout.decode().strip() or None
  except OSError:
    found['gpu'] = None
  return found


def table(results: Row) -> str:
  """The results as Markdown; what failed says why."""
  lines = [f'{results["when"]}: {json.dumps(results["versions"])}', '']
  lines += _grid(
    ('case', 'what', 'dtype', 'ours, ms', 'images/s', 'TFLOP/s', 'MFU', 'peak GB',
     'planned GB', 'planned ms', 'compile s', 'eager, ms', 'compiled, ms', 'ratio'),
    [
      (r['case'], r['what'], r['dtype'], _ms(r, 'ours_s'),
       _number(r, 'images_per_s', 0), _number(r, 'tflops', 1), _percent(r),
       _number(r, 'ours_peak_gb', 1),
       _number(_planned(r), 'gb', 1), _ms(_planned(r), 's'),
       _number(r, 'compile_s', 0), _ms(r, 'eager_s'), _ms(r, 'compiled_s'),
       _number(r, 'ratio', 2))
      for r in results['speed']
    ],
  )  # fmt: skip
  lines += _grid(
    ('family', 'dtype', 'metrics', 'weights', 'bound', ''),
    [
      (r['family'], r['dtype'], f'{r["metrics"]:.1e}', f'{r["weights"]:.1e}',
       f'{r["bound"]:.0e}', 'ok' if r['ok'] else 'MISSED')
      for r in results['parity']
    ],
  )  # fmt: skip
  lines += _grid(
    ('command', 's', ''),
    [(r['command'], r['s'], r.get('failed', 'ok')) for r in results['commands']],
  )
  lines += [f'- {name}: {why}' for name, why in results['failed'].items()]
  for row in results['speed']:
    for side in ('ours', 'eager', 'compiled'):
      if f'{side}_failed' in row:
        lines.append(f'- {row["case"]}, {row["what"]}, {side}: {row[f"{side}_failed"]}')
  return '\n'.join(lines) + '\n'


def _grid(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
  if not rows:
    return []
  line = lambda cells: '| ' + ' | '.join(map(str, cells)) + ' |'
  return [line(head), '|' + '---|' * len(head), *map(line, rows), '']


def _planned(row: Row) -> Row:
  return row.get('predicted', {}) if row['what'] == 'train' else {}


def _number(row: Row, name: str, digits: int) -> str:
  return f'{row[name]:,.{digits}f}' if name in row else ''


def _ms(row: Row, name: str) -> str:
  return f'{1e3 * row[name]:.1f}' if name in row else ''


def _percent(row: Row) -> str:
  return f'{row["mfu"]:.0%}' if 'mfu' in row else ''


def merged(old: list[Row], new: list[Row], keys: Sequence[str]) -> list[Row]:
  """The rows of both; a new row replaces the old one of the same keys, if it worked."""
  name = lambda row: tuple(row.get(key) for key in keys)
  worked = lambda row: 'failed' not in row and 'ours_failed' not in row
  rows = {name(row): row for row in old}
  for row in new:
    if worked(row) or not worked(rows.get(name(row), {'failed': ''})):
      rows[name(row)] = row
  return list(rows.values())


def save(results: Row, out: Path) -> None:
  out.mkdir(parents=True, exist_ok=True)
  (out / 'results.json').write_text(json.dumps(results, indent=1) + '\n')
  (out / 'table.md').write_text(table(results))


def load(out: Path) -> Row:
  """The results of earlier runs in a folder, which a new run adds to."""
  path = out / 'results.json'
  if path.is_file():
    return json.loads(path.read_text())
  return {'speed': [], 'parity': [], 'commands': []}


def has_torch(python: str) -> bool:
  """Whether a Python can import PyTorch."""
  if python == sys.executable:
    return importlib.util.find_spec('torch') is not None
  return not subprocess.run(
    [python, '-c', 'import torch'], capture_output=True
  ).returncode


def make_parser() -> argparse.ArgumentParser:
  p = argparse.ArgumentParser(description=__doc__)
  p.add_argument('--tiny', action='store_true', help='tiny networks, on any device')
  p.add_argument('--minutes', type=float, default=9, help='after which it ends')
  p.add_argument('--parts', default=','.join(PARTS), help=f'of {", ".join(PARTS)}')
  p.add_argument('--cases', default='', help=f'of {", ".join(CASES)}')
  p.add_argument('--visits', type=int, default=5, help='of each side, in turns')
  p.add_argument('--torch', default=sys.executable, help='a Python that has PyTorch')
  p.add_argument('--cache', default='', help="folder of JAX's compile cache")
  p.add_argument('--out', type=Path, default=HERE / 'results')
  return p


def main(argv: Sequence[str] | None = None) -> None:
  args = make_parser().parse_args(argv)
  clock, names = Clock(args.minutes), list(FAMILIES[:1] if args.tiny else CASES)
  names = args.cases.split(',') if args.cases else names
  results = load(args.out)
  results |= {'failed': {}, 'when': f'{datetime.date.today()}'}
  results['versions'] = versions(args.torch)
  if not has_torch(args.torch):
    results['failed']['PyTorch'] = f'{args.torch} has none: nothing is compared'
    args.torch = ''

  def attempt(name: str, do: Callable[[], list[Row]], kind: str, *keys: str) -> None:
    try:
      rows = do()
    except Exception as error:  # each part survives the failure of another
      results['failed'][name] = f'{type(error).__name__}: {error}'[:300]
      print(f'{name}: {results["failed"][name]}', flush=True)
      return
    results[kind] = merged(results[kind], rows, keys)
    save(results, args.out)
    for row in rows:
      print(json.dumps(row), flush=True)

  parts = args.parts.split(',')
  if 'parity' in parts:
    todo = lambda: check_numbers(args, clock)
    attempt('parity', todo, 'parity', 'family', 'dtype')
  if 'speed' in parts:
    for name in names:
      todo = lambda name=name: time_case(name, CASES[name](args.tiny), args, clock)
      attempt(name, todo, 'speed', 'case', 'what')
  if 'commands' in parts:
    attempt('commands', lambda: check_commands(args, clock), 'commands', 'command')
  save(results, args.out)
  print(table(results))


if __name__ == '__main__':
  main()
