"""Is gan_jax faster than PyTorch on a CPU? See README.md beside this file."""

import argparse
import csv
import json
import math
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from cases import CASES, Case, deeper, flops

HERE = Path(__file__).parent
RESULTS = HERE / 'results'
JAX = (sys.executable, str(HERE / 'jax_side.py'))
FORMATS = ('contiguous', 'channels_last')
# Lets glibc keep freed memory. gan_jax sets this itself
# (gan_jax.runtime.environment.keep_freed_memory).
MALLOC = {
  'MALLOC_MMAP_MAX_': '0',
  'MALLOC_TRIM_THRESHOLD_': '100000000000',
  'MALLOC_TOP_PAD_': '268435456',
  'MALLOC_ARENA_MAX': '1',
}
FLAGS = os.environ.get('XLA_FLAGS', '')
CORES = len(os.sched_getaffinity(0))
YNN = '--xla_cpu_experimental_ynn_fusion_type'
# What one iteration of ours takes with something else: environment, model, arguments.
VARIANTS: dict[str, tuple[dict, dict, tuple[str, ...]]] = {
  "XLA's default convolutions": ({'XLA_FLAGS': f'{FLAGS} {YNN}='}, {}, ()),
  'resampling not folded': ({}, {}, ('--change=beside',)),
  'folded, not nine products': ({}, {}, ('--change=folded',)),
  "weights' gradients by rule": ({}, {}, ('--change=by_rule',)),
  "XLA's reductions for sums over images": ({}, {}, ('--change=reduced',)),
  "kernels' gradients of all images at once": ({}, {}, ('--change=at_once',)),
  'images by usual convolutions': ({}, {}, ('--change=whole',)),
  'no Winograd': ({}, {}, ('--change=direct',)),
  'fakes and reals apart in D': ({}, {'split_d': True}, ()),
  'bfloat16': ({}, {'dtype': 'bfloat16'}, ()),
  'vectors of 512 bits': (
    {'XLA_FLAGS': f'{FLAGS} --xla_cpu_prefer_vector_width=512'},
    {},
    (),
  ),
  'a device for each core': (
    {'XLA_FLAGS': f'{FLAGS} --xla_force_host_platform_device_count={CORES}'},
    {},
    (),
  ),
}


GROWTH = {
  'biggan': (32, 64, 128, 256),
  'progan': (16, 32, 64, 128, 256),
  'stylegan': (16, 32, 64, 128, 256),
}


class Worker:
  """A process that answers commands; see worker.py."""

  def __init__(self, command: Sequence[str], case: Case, env: dict[str, str]):
    self._spawned = time.perf_counter()
    self._process = subprocess.Popen(
      [*command, '--case', json.dumps(case)],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
      env=os.environ | env,
    )
    self.hello = self._answer()

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self._process.stdin.close()
    self._process.wait()

  @property
  def age(self) -> float:
    return time.perf_counter() - self._spawned

  def ask(self, command: str) -> dict[str, Any]:
    print(command, file=self._process.stdin, flush=True)
    return self._answer()

  def _answer(self) -> dict[str, Any]:
    line = self._process.stdout.readline()
    if not line:
      raise SystemExit(f'a worker ended: {shlex.join(self._process.args[:2])}')
    return json.loads(line)


@contextmanager
def cores(n: int) -> Iterator[dict[str, str]]:
  """This process, and those started here, on n cores; their environment."""
  available = os.sched_getaffinity(0)
  if n > len(available):
    raise SystemExit(f'--threads={n}: this machine has {len(available)} cores')
  os.sched_setaffinity(0, sorted(available)[:n])
  try:
    yield {'OMP_NUM_THREADS': str(n)}
  finally:
    os.sched_setaffinity(0, available)


def busy_seconds() -> float:
  """CPU time of the whole machine so far."""
  user, nice, system, *_ = Path('/proc/stat').read_text().split()[1:5]
  return (int(user) + int(nice) + int(system)) / os.sysconf('SC_CLK_TCK')


def interleaved(
  workers: Sequence[Worker], command: str, seconds: float, least: int, visit: float
) -> tuple[list[list[dict]], float]:
  """Rounds of one visit to each worker in turn: times an iteration, by worker.

  Also how many cores something else kept busy meanwhile.
  """
  warm = [worker.ask(f'{command} 1')['wall'] for worker in workers]
  n = max(1, math.ceil(visit / max(warm)))
  times: list[list[dict]] = [[] for _ in workers]
  start, busy, own = time.perf_counter(), busy_seconds(), 0.0
  while len(times[0]) < least or time.perf_counter() - start < seconds:
    for worker, found in zip(workers, times):
      time.sleep(0.05)  # idle threads of the other one spin for a moment
      answer = worker.ask(f'{command} {n}')
      own += answer['cpu']
      found.append({name: answer[name] / n for name in ('wall', 'cpu')})
  others = (busy_seconds() - busy - own) / (time.perf_counter() - start)
  return times, max(others, 0.0)


def spread(values: Sequence[float]) -> tuple[float, float, float]:
  """Median and quartiles."""
  low, middle, high = statistics.quantiles(values, n=4, method='inclusive')
  return middle, low, high


# The comparison.


def faster_format(python: str, case: Case, env: dict[str, str]) -> str:
  """The memory format in which PyTorch trains this case faster, here."""
  walls = {}
  for name in FORMATS:
    command = (python, str(HERE / 'torch_side.py'), '--format', name)
    with Worker(command, case, MALLOC | env) as worker:
      worker.ask('train 1')
      walls[name] = worker.ask('train 1')['wall']
  print('  '.join(f'{name} {1e3 * x:.0f} ms' for name, x in walls.items()), flush=True)
  return min(walls, key=walls.__getitem__)


def cold_start(case: Case, env: dict[str, str]) -> dict[str, float]:
  """Compile time, and time to the first iteration, with an empty cache."""
  with Worker(JAX, case, env) as worker:
    worker.ask('train 1')
    return {
      'cold_init_s': worker.hello['init_s'],
      'cold_compile_s': worker.hello['compile_s'],
      'cold_first_s': worker.age,
      'cold_peak_mib': worker.ask('memory')['peak_mib'],
    }


def compare(
  name: str, case: Case, peer: Sequence[str], threads: int, args: Any, env: dict
) -> list[dict]:
  """Rows of one case: ours and the peer's training and sampling."""
  work = dict(zip(('train', 'sample'), flops(case)))
  sides = [(JAX, env), *([(peer, MALLOC | env)] if peer else [])]
  with ExitStack() as stack:
    workers, firsts = [], []
    for command, around in sides:
      worker = stack.enter_context(Worker(command, case, around))
      worker.ask('train 1')
      firsts.append(worker.age)
      workers.append(worker)
    counts = {(w.hello.get('g_params'), w.hello.get('d_params')) for w in workers}
    if len(counts - {(None, None)}) > 1:
      raise SystemExit(f'{name}: the sides have other parameters: {counts}')
    trained = interleaved(workers, 'train', args.seconds, args.least, args.visit)
    peaks = [worker.ask('memory')['peak_mib'] for worker in workers]
    brief = args.seconds / 4
    for worker in workers:
      worker.ask('sample 1')
    sampled = interleaved(workers, 'sample', brief, args.least, args.visit / 2)
    best = [0.0]
    if not args.peer:
      best = [w.ask('matmul 8')['gflops'] for _ in range(2) for w in workers]
  rows = []
  for what, (times, others) in (('train', trained), ('sample', sampled)):
    for i, worker in enumerate(workers):
      wall, low, high = spread([x['wall'] for x in times[i]])
      rows.append(
        {
          'case': name,
          'threads': threads,
          'what': what,
          'side': worker.hello['side'],
          'version': worker.hello.get('version', ''),
          'rounds': len(times[i]),
          'wall_ms': 1e3 * wall,
          'wall_ms_low': 1e3 * low,
          'wall_ms_high': 1e3 * high,
          'cpu_ms': 1e3 * statistics.median(x['cpu'] for x in times[i]),
          'gflops': work[what] / wall / 1e9,
          'matmul_gflops': max(best),
          'peak_mib': peaks[i] if what == 'train' else '',
          'first_s': firsts[i] if what == 'train' else '',
          'compile_s': worker.hello.get('compile_s', '') if what == 'train' else '',
          'others': others,
        }
      )
    if peer:
      for kind in ('wall', 'cpu'):
        ratios = [a[kind] / b[kind] for a, b in zip(*times)]
        for part, x in zip(('', '_low', '_high'), spread(ratios)):
          rows[-2][f'{kind}_ratio{part}'] = x
  if peer:
    rows[0]['memory_ratio'] = peaks[0] / peaks[1]
  return rows


def measure(args: Any) -> None:
  began = time.perf_counter()
  formats: dict[str, str] = {}
  with tempfile.TemporaryDirectory() as fresh:
    for threads in args.threads:
      for name in args.cases:
        case, peer = CASES[name](args.tiny), shlex.split(args.peer)
        cache = (args.cache or Path(fresh)).absolute() / name
        env = {'JAX_COMPILATION_CACHE_DIR': str(cache)}
        if not cache.exists():  # on all cores: programs are cut up for those there are
          cache.mkdir(parents=True)
          row = {'case': name, 'cores': CORES, **cold_start(case, env)}
          write(args.out / 'cold.csv', [row], ('case',))
        with cores(threads) as environment:
          env |= environment
          if args.python and not peer:
            if name not in formats:
              formats[name] = faster_format(args.python, case, env)
            command = (args.python, str(HERE / 'torch_side.py'))
            peer = [*command, '--format', formats[name]]
          rows = compare(name, case, peer, threads, args, env)
        write(args.out / 'steps.csv', rows, ('case', 'threads', 'what'))
        print(
          f'{name}, {threads} thread(s): {time.perf_counter() - began:.0f} s so far',
          flush=True,
        )
  print_tables(args.out)


def print_tables(folder: Path) -> None:
  """The tables of the README, from all that has been measured."""
  rows = read(folder / 'steps.csv')
  by = {}
  for row in rows:
    by.setdefault((row['what'], row['case'], row['threads']), []).append(row)
  times = [f'wall_ms{part}' for part in ('', '_low', '_high')]
  ms = lambda r: '{} ({} to {})'.format(*(number(r, k) for k in times))
  share = lambda r: (
    f'{number(r, "gflops")} ({float(r["gflops"]) / float(r["matmul_gflops"]):.0%})'
    if float(r['matmul_gflops'])
    else number(r, 'gflops')
  )
  for what in ('train', 'sample'):
    table = []
    for (kind, case, threads), pair in sorted(by.items(), key=lambda x: -int(x[0][2])):
      if kind != what:
        continue
      ours, peer = (pair + [{}])[:2]
      table.append(
        [
          f'`{case}`',
          threads,
          ms(ours),
          ms(peer) if peer else '',
          number(ours, 'wall_ratio', 2),
          number(ours, 'cpu_ratio', 2),
          share(ours),
          share(peer) if peer else '',
        ]
      )
      if what == 'train':
        table[-1] += [number(r, 'peak_mib') for r in (ours, peer)]
        table[-1].append(number(ours, 'memory_ratio', 2))
    heads = ['case', 'threads', 'gan_jax, ms', 'peer, ms', 'wall', 'CPU']
    heads += ['GFLOP/s (of peak)', "peer's GFLOP/s (of peak)"]
    heads += ['peak MiB', "peer's peak MiB", 'memory'] if what == 'train' else []
    print_table(what, heads, table)
  columns = ('cold_init_s', 'cold_compile_s', 'compile_s', 'cold_first_s', 'first_s')
  heads = ['case', 'state, cold', 'step, cold', 'step, from the cache']
  heads += ['first iteration, cold', 'first iteration, from the cache']
  lines = []
  for cold in read(folder / 'cold.csv'):
    found = by.get(('train', cold['case'], cold['cores']), [{}])[0]
    lines.append([f'`{cold["case"]}`', *(number(found | cold, k, 1) for k in columns)])
  print_table('start', heads, lines)


# What our own step spends.


def ablate(args: Any) -> None:
  """Our step against itself with one thing changed, in pairs."""
  rows = []
  threads = args.threads[0]
  with tempfile.TemporaryDirectory() as cache, cores(threads) as environment:
    env = environment | {'JAX_COMPILATION_CACHE_DIR': cache}
    for name in args.cases:
      for variant, (extra, model, options) in VARIANTS.items():
        case, other = CASES[name](args.tiny), CASES[name](args.tiny)
        if 'split_d' in model and case['nets']['family'] != 'biggan':
          continue
        other['config']['model'] |= model
        sides = (JAX, case, env), ((*JAX, *options), other, env | extra)
        for side in sides:  # into the cache: compiling would count as memory
          with Worker(*side):
            pass
        with Worker(*sides[0]) as base, Worker(*sides[1]) as changed:
          for worker in (base, changed):
            worker.ask('train 1')
          pair = base, changed
          times, _ = interleaved(pair, 'train', args.seconds, args.least, args.visit)
          memory = [worker.ask('memory')['peak_mib'] for worker in pair]
        ratios = [b['wall'] / a['wall'] for a, b in zip(*times)]
        middle, low, high = spread(ratios)
        rows.append(
          {
            'case': name,
            'threads': threads,
            'variant': variant,
            'wall_ratio': middle,
            'wall_ratio_low': low,
            'wall_ratio_high': high,
            'memory_ratio': memory[1] / memory[0],
            'rounds': len(ratios),
          }
        )
        write(args.out / 'ablation.csv', rows[-1:], ('case', 'threads', 'variant'))
  print_table(
    'time with the change / without',
    ['case', 'change', 'wall', 'quartiles', 'memory'],
    [
      [
        f'`{r["case"]}`',
        r['variant'],
        f'{r["wall_ratio"]:.2f}',
        f'{r["wall_ratio_low"]:.2f} to {r["wall_ratio_high"]:.2f}',
        f'{r["memory_ratio"]:.2f}',
      ]
      for r in rows
    ],
  )


def parts(args: Any) -> None:
  """The parts of our step as programs of their own."""
  table = []
  with cores(args.threads[0]) as environment:
    for name in args.cases:
      with Worker(JAX, CASES[name](args.tiny), environment) as worker:
        found = worker.ask('parts')
      rows = [{'case': name, 'part': k, 'ms': 1e3 * x} for k, x in found.items()]
      write(args.out / 'parts.csv', rows, ('case', 'part'))
      table += [[f'`{name}`', r['part'], f'{r["ms"]:.1f}'] for r in rows]
  print_table('parts of an iteration', ['case', 'part', 'ms'], table)


def grow(args: Any) -> None:
  """Compile time of the step by family and resolution."""
  rows = []
  for family, sizes in GROWTH.items():
    for res in sizes:
      if res > args.largest:
        continue
      with tempfile.TemporaryDirectory() as cache:
        env = {'JAX_COMPILATION_CACHE_DIR': cache}
        found = []
        for _ in range(2):
          with Worker(JAX, deeper(family, res), env) as worker:
            found.append(worker.hello)
      row = {'family': family, 'res': res, 'state_cold_s': found[0]['init_s']}
      row |= {'cold_s': found[0]['compile_s'], 'cached_s': found[1]['compile_s']}
      write(args.out / 'compile.csv', [row], ('family', 'res'))
      rows.append(row)
  print_table(
    'seconds to compile',
    ['family', 'resolution', 'state, cold', 'step, cold', 'step, from the cache'],
    [[r['family'], r['res'], *(f'{x:.1f}' for x in [*r.values()][2:])] for r in rows],
  )


def start(args: Any) -> None:
  """From the command of `make demo` to its first iteration, first cold, then warm."""
  rows = []
  with tempfile.TemporaryDirectory() as folder:
    env = os.environ | {'JAX_COMPILATION_CACHE_DIR': f'{folder}/cache'}
    for i in range(1 + args.repeats):
      workdir = Path(folder) / f'run{i}'
      command = [sys.executable, '-m', 'gan_jax.main', f'--config={args.config}']
      command += [f'--workdir={workdir}', '--config.log.metrics_every=1']
      command += ['--config.train.images=128']
      began, first = time.perf_counter(), math.nan
      process = subprocess.Popen(
        command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
      )
      while process.poll() is None:
        lines = workdir / 'metrics.jsonl'
        if math.isnan(first) and lines.is_file() and lines.stat().st_size:
          first = time.perf_counter() - began
        time.sleep(0.02)
      if process.returncode or math.isnan(first):
        raise SystemExit(f'{shlex.join(command)} failed')
      rows.append({'run': 'warm' if i else 'cold', 'number': i, 'first_s': first})
      print(
        f'{rows[-1]["run"]}: first iteration logged after {first:.1f} s', flush=True
      )
  write(args.out / 'start.csv', rows, ('run', 'number'))
  warm = statistics.median(r['first_s'] for r in rows[1:])
  print(f'from a warm cache, median of {args.repeats}: {warm:.1f} s')


def check(args: Any) -> None:
  """Runs one iteration on both sides from the same weights, images and noise."""
  table = []
  with tempfile.TemporaryDirectory() as folder:
    for name in args.cases:
      case, path = CASES[name](args.tiny), f'{folder}/{name}.npz'
      with Worker(JAX, case, {}) as worker:
        ours = worker.ask(f'check {path}')
      ours.setdefault(
        'd_loss', sum(ours.get(f'd_loss_{x}', 0) for x in ('real', 'fake'))
      )
      for layout in FORMATS:
        command = (args.python, str(HERE / 'torch_side.py'), '--format', layout)
        with Worker(command, case, {}) as worker:
          theirs = worker.ask(f'check {path}')
        for k, x in theirs.items():
          table.append([f'`{name}`', layout, k, f'{ours[k]:.6g}', f'{x:.6g}'])
          if not math.isclose(ours[k], x, rel_tol=1e-2):
            raise SystemExit(f'{name}: {k} is {ours[k]}, of PyTorch {x}')
  print_table('one iteration', ['case', 'format', 'value', 'gan_jax', 'PyTorch'], table)


# Files and tables.


def read(path: Path) -> list[dict[str, str]]:
  if not path.is_file():
    return []
  with path.open(newline='') as f:
    return list(csv.DictReader(f))


def write(path: Path, rows: list[dict], key: tuple[str, ...]) -> None:
  """Rows take the place of those with the same key; others stay."""
  of = lambda row: tuple(str(row[k]) for k in key)
  fresh = {of(row) for row in rows}
  rows = [row for row in read(path) if of(row) not in fresh] + rows
  columns = dict.fromkeys(k for row in rows for k in row)
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open('w', newline='') as f:
    writer = csv.DictWriter(f, columns, lineterminator='\n')
    writer.writeheader()
    for row in rows:
      writer.writerow(
        {k: f'{x:.5g}' if isinstance(x, float) else x for k, x in row.items()}
      )


def number(row: dict, name: str, digits: int = 0) -> str:
  return f'{float(row[name]):.{digits}f}' if row.get(name) else ''


def print_table(title: str, heads: list[str], rows: list[list]) -> None:
  print(f'\n{title}\n\n| {" | ".join(heads)} |\n{"|---" * len(heads)}|')
  for row in rows:
    print(f'| {" | ".join(map(str, row))} |')


def main() -> None:
  p = argparse.ArgumentParser(description=__doc__)
  p.add_argument(
    'what',
    nargs='?',
    default='measure',
    choices=['measure', 'check', 'ablate', 'parts', 'grow', 'start'],
  )
  names = lambda text: text.split(',')
  p.add_argument(
    '--cases', type=names, default=list(CASES), help=f'of {",".join(CASES)}'
  )
  p.add_argument(
    '--threads', type=lambda text: [*map(int, names(text))], default=[2, 1]
  )
  p.add_argument('--python', default='', help='interpreter that has torch')
  p.add_argument(
    '--peer', default='', help='another command that speaks the protocol of worker.py'
  )
  p.add_argument('--cache', type=Path, help='folder of compiled programs to keep')
  p.add_argument(
    '--seconds', type=float, default=16, help='seconds of training, in rounds'
  )
  p.add_argument('--least', type=int, default=3, help='minimum number of rounds')
  p.add_argument('--visit', type=float, default=0.5, help='minimum seconds per visit')
  p.add_argument('--largest', type=int, default=128, help='largest resolution of grow')
  p.add_argument('--config', default='configs/biggan_emoji.py', help='config of start')
  p.add_argument('--repeats', type=int, default=3, help='starts from a warm cache')
  p.add_argument('--tiny', action='store_true', help='tiny networks, to try the script')
  p.add_argument('--out', type=Path, default=RESULTS, help='folder of the .csv files')
  args = p.parse_args()
  if unknown := set(args.cases) - set(CASES):
    p.error(f'no case {", ".join(unknown)}: there are {", ".join(CASES)}')
  todo = {
    'measure': measure,
    'check': check,
    'ablate': ablate,
    'parts': parts,
    'grow': grow,
    'start': start,
  }
  todo[args.what](args)


if __name__ == '__main__':
  main()
