"""The training loop, the only one."""

import contextlib
import dataclasses
import functools
import importlib.metadata
import json
import math
import os
import platform
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tqdm import tqdm

import gan_jax
from gan_jax import UserError, data, report, sample, watch
from gan_jax.checkpoint import Checkpoints, own
from gan_jax.gan import Phase
from gan_jax.recipe import Recipe
from gan_jax.stages import Stages
from gan_jax.step import TrainState, init_state, make_mesh, make_reset, replicate

# A resumed run may differ in these without being another run.
FREE = (
  *('train.images', 'train.mapped', 'data.threads', 'data.data_dir'),
  *('log.', 'watch.'),
)
ROLLBACKS = 'rollbacks.jsonl'
SPACING = 4  # checkpoints from one of the ring to the next


class Stopped(KeyboardInterrupt):
  """Asked to stop while there was nothing to save."""


def train(
  recipe: Recipe,
  config: Mapping[str, Any],
  workdir: str | Path,
  allow_config_change: bool = False,
) -> TrainState:
  """Trains to `recipe.train.images`, from the newest checkpoint of `workdir` if any.

  The workdir gets config.json, run.json, starts.jsonl, metrics.jsonl, report.html,
  watch.png, sheets/, checkpoints/ and TensorBoard's events. Ctrl-C and SIGTERM save
  and return; while a step is compiled, and all is saved, they raise `Stopped`.

  Raises:
    UserError: before anything is compiled, or where the run cannot go on; one sentence.
  """
  workdir, mesh = Path(workdir), make_mesh()
  gan, log = recipe.gan, recipe.log
  for stage in recipe.stages:
    recipe.shape(stage, mesh.size)
  dataset = data.load(
    recipe.data.name,
    split=recipe.data.split,
    data_dir=recipe.data.data_dir or None,
    res=gan.res,
    channels=gan.channels,
  )
  data.check_labels(dataset, gan.n_classes)
  first = jax.process_index() == 0
  say = tqdm.write if first else lambda *_: None
  with own(workdir) if first else nullcontext(), Stop() as stop:
    prepare_workdir(workdir, config, mesh, allow_config_change, first, dataset)
    page = report.Writer(workdir, first, say)
    fewest = min(recipe.images_per_step(stage) for stage in recipe.stages)
    checkpoints = Checkpoints(
      workdir,
      log.keep,
      ring=log.ring,
      spacing=SPACING * max(log.checkpoint_every // fewest, 1),
      say=say,
    )
    while True:
      run = Run(recipe, dataset, workdir, mesh, checkpoints, stop, say, page)
      try:
        collapse = run.go()
        if collapse is None:
          break
        run.roll_back(collapse)
      except UserError:
        checkpoints.wait()  # what is being saved counts
        raise
    if run.unsaved or not checkpoints.wait():
      checkpoints.save(int(run.state.step), run.state)
      run.sheets.write(run.state.ema, run.images, run.phase)
    if not checkpoints.wait():
      raise UserError(
        f'the last checkpoint could not be written to {workdir}: make room there and '
        f'start again; {", ".join(map(str, checkpoints.steps())) or "none"} are saved.'
      )
    checkpoints.close()
    if first:
      lines = read_lines(workdir / 'metrics.jsonl')
      watch.plot(workdir / 'watch.png', lines + read_lines(workdir / ROLLBACKS))
    page.finish()
  finished = run.images >= recipe.train.images
  say(
    f'{"finished" if finished else "stopped; resume with the same"} at image '
    f'{run.images}: pictures and curves in {workdir}/report.html (or tensorboard '
    f'--logdir={workdir}); next: python -m gan_jax.sample '
    f'--workdir={workdir} --seeds=0-63 --out=sheet.png'
  )
  return run.state


class Run:
  """From a checkpoint, or a fresh state, to the end or to a collapse."""

  def __init__(
    self,
    recipe: Recipe,
    dataset: data.Dataset,
    workdir: Path,
    mesh: Mesh,
    checkpoints: Checkpoints,
    stop: 'Stop',
    say: Callable[[str], Any],
    page: report.Writer,
  ):
    self._recipe, self._workdir, self._say = recipe, workdir, say
    self._checkpoints, self._stop, self._page = checkpoints, stop, page
    self._first = jax.process_index() == 0
    gan = recipe.gan
    g_tx, d_tx = recipe.g_adam.transform(), recipe.d_adam.transform()
    key = jax.random.key(recipe.train.seed)
    self.state = start_state(gan, g_tx, d_tx, key, mesh, checkpoints)
    self.images = int(self.state.images)
    self.phase = recipe.schedule.phase_at(self.images, gan.res)
    self.unsaved = False
    self._key = key
    self._reset = make_reset(g_tx, d_tx, mesh)
    self.sheets = Sheets(recipe, workdir, self._first, say)
    self._stages = Stages(
      recipe, dataset, mesh, self.state, key, also=self.sheets.prepare
    )
    self._rollbacks = read_lines(workdir / ROLLBACKS)
    self._rate = np.float32(recipe.watch.lower ** len(self._rollbacks))
    if self._first:
      about = json.loads((workdir / 'run.json').read_text())
      names = ('started', 'devices', 'device_kind', 'processes')
      line = {'images': self.images} | {name: about[name] for name in names}
      with contextlib.suppress(OSError), (workdir / report.STARTS).open('a') as f:
        f.write(json.dumps(line) + '\n')
      page.refresh()
    say(
      f'{recipe.data.name}: {len(dataset.examples)} images, {dataset.n_classes} '
      f'classes; {mesh.size} {jax.devices()[0].platform} device(s); '
      + (f'resuming at image {self.images}' if self.images else 'starting')
      + '; the first step compiles and may take a minute or more'
    )

  def go(self) -> str | None:
    """Trains; why it has to be rolled back, or None.

    Raises:
      UserError: no update is finite any more, or a collapse is to stop the run.
    """
    total = self._recipe.train.images
    self._watcher = watch.Watcher(self._recipe.watch)
    journal = Journal(self._workdir, total, self.images, self._first, self._say)
    for line in journal.lines:
      self._watcher.see(line)
    with journal, self._stages:
      return self._loop(journal)

  def _loop(self, journal: 'Journal') -> str | None:
    recipe, stop, checkpoints = self._recipe, self._stop, self._checkpoints
    gan, train_, log = recipe.gan, recipe.train, recipe.log
    alone = jax.process_count() == 1
    pending: tuple[int, Any] | None = None

    def settle(every: int) -> None:  # the devices have come to the end of a step
      nonlocal pending
      if pending:
        values = journal.add(*pending, every, self._watcher)
        pending = None
        if broken := self._watcher.note_step(values):
          raise UserError(
            f'stopped at image {self.images}: {broken}; checkpoints '
            f'{", ".join(map(str, checkpoints.steps())) or "(none)"} of '
            f'{self._workdir} are finite: lower schedule.g_lr and d_lr, or raise '
            'watch.patience.'
          )

    if self.images >= train_.images:
      return None
    now = self._stages.enter(self.images)
    stop.idle, step = False, int(self.state.step)
    while self.images < train_.images and not stop.asked(step):
      phase = self.phase = recipe.schedule.phase_at(self.images, gan.res)
      since = time.perf_counter()
      changed = phase.res != now.res
      if changed:
        stop.idle = checkpoints.wait()  # nothing is lost if this takes too long
        now = self._stages.enter(self.images)
        stop.idle = False
      rates = dataclasses.replace(
        phase, g_lr=phase.g_lr * self._rate, d_lr=phase.d_lr * self._rate
      )
      self.state, metrics = now.step(self.state, next(now.batches), self._key, rates)
      self.unsaved = True
      if changed:
        took = time.perf_counter() - since
        journal.note(
          {'images': self.images, 'res': now.res, 'change_s': took, **now.opening}
        )
        self._say(
          f'image {self.images}: {now.res} x {now.res} from here on; the change took '
          f'{took:.2f} s, its compile beforehand {now.opening["compile_s"]:.1f} s'
        )
      settle(log.metrics_every)  # of the step before: the devices need not wait
      step += 1
      before, self.images = self.images, self.images + now.images_per_step
      moving = {'res': phase.res, 'alpha': phase.alpha}
      moving |= {'g_lr': rates.g_lr, 'd_lr': rates.d_lr}
      pending = self.images, metrics | moving
      if recipe.schedule.resets_between(before, self.images):
        self.state = self._reset(self.state)
      grows = recipe.schedule.phase_at(self.images, gan.res).res != phase.res
      shows = grows or crossed(before, self.images, log.sheet_every)
      saves = grows or crossed(before, self.images, log.checkpoint_every)
      if alone and crossed(before, self.images, log.metrics_every):
        saves = saves or checkpoints.poll()  # the last one has failed: once more
      if shows or saves:  # what the journal says goes as far as what is saved
        settle(1 if grows or self.images >= train_.images else log.metrics_every)
      if shows:
        collapse = self._look(journal)
        self._page.refresh()
        if collapse:
          return collapse
      if saves:
        self.unsaved = not checkpoints.save(step, self.state)
    settle(1)
    return None

  def _look(self, journal: 'Journal') -> str | None:
    """Writes a sheet and what it shows; why the run has to be rolled back, or None."""
    state, limits = self.state, self._recipe.watch
    varied = self.sheets.write(state.ema, self.images, self.phase)
    collapse = None
    if self._first:
      line: dict[str, Any] = {'images': self.images, 'step': int(state.step)}
      for name, net in (('d', state.d), ('g', state.g)):
        values = watch.singular_values(net.get('spectral', {}))
        if values:
          line[f'{name}_sigma'] = max(s[0] for s in values.values())
        journal.draw(
          self.images,
          {
            f'{name}_sigma/{layer}/{i + 1}': s
            for layer, found in values.items()
            for i, s in enumerate(found)
          },
        )
      line['diversity'] = varied
      self._watcher.see(line)
      journal.note(line)
      collapse = self._watcher.verdict()
    good = self._watcher.good_step
    if jax.process_count() > 1:
      told = np.array([collapse is not None, good], np.int32)
      bad, good = multihost_utils.broadcast_one_to_all(told).tolist()
      collapse = collapse or 'collapsed' if bad else None
    if collapse is None:
      return None
    self._watcher.good_step = good
    journal.note({'images': self.images, 'collapsed': collapse})
    self._say(
      f'image {self.images}: this run seems to have collapsed: {collapse}; step {good} '
      'was the last to look good'
    )
    if limits.response == 'tell':
      return None
    if limits.response == 'rollback' and len(self._rollbacks) < limits.rollbacks:
      return collapse
    raise UserError(
      f'stopped at image {self.images} for a collapse ({collapse}): saved are '
      f'{", ".join(map(str, self._checkpoints.steps())) or "no checkpoints"}, and step '
      f'{good} was the last to look good; go on with watch.response=tell or rollback.'
    )

  def roll_back(self, collapse: str) -> None:
    """Back to the newest checkpoint that was good, and slower from there.

    Raises:
      UserError: there is none.
    """
    checkpoints = self._checkpoints
    checkpoints.wait()
    back = checkpoints.newest(up_to=self._watcher.good_step)
    if back is None:
      raise UserError(
        f'stopped at image {self.images} for a collapse ({collapse}): there is no '
        'checkpoint from before it; keep more of them (log.keep, log.ring), or start '
        'anew with lower learning rates.'
      )
    checkpoints.drop_after(back)
    self._stop.idle = True
    self._say(
      f'rolled back to step {back}; learning rates are multiplied by '
      f'{self._recipe.watch.lower}'
    )
    if self._first:
      event = {'images': self.images, 'to_step': back, 'collapsed': collapse}
      with (self._workdir / ROLLBACKS).open('a') as f:
        f.write(json.dumps(event) + '\n')
    if jax.process_count() > 1:
      multihost_utils.sync_global_devices('rolled back')


def crossed(before: int, after: int, every: int) -> bool:
  """Whether a multiple of `every` lies in (before, after]."""
  return after // every > before // every


def start_state(
  gan: Any, g_tx: Any, d_tx: Any, key: jax.Array, mesh: Mesh, checkpoints: Checkpoints
) -> TrainState:
  """The newest checkpoint, or a fresh state; replicated over the mesh."""

  def fresh():
    return init_state(gan, g_tx, d_tx, jax.random.fold_in(key, 2**31 - 1))

  latest = checkpoints.newest()
  if latest is None:
    return replicate(jax.jit(fresh)(), mesh)
  sharding = NamedSharding(mesh, P())
  like = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
    jax.eval_shape(fresh),
  )
  return checkpoints.restore(latest, like)


def prepare_workdir(
  workdir: Path,
  config: Mapping[str, Any],
  mesh: Mesh,
  allow: bool,
  first: bool,
  dataset: data.Dataset,
) -> None:
  """Writes what this run is; refuses the workdir of another one.

  Raises:
    UserError: the config there differs, key by key.
  """
  path = workdir / 'config.json'
  flat = flatten(json.loads(json.dumps(config)))
  if path.is_file():
    old = flatten(json.loads(path.read_text()))
    changes = [
      f'{name}: {old.get(name, "absent")} -> {flat.get(name, "absent")}'
      for name in sorted({*old, *flat})
      if old.get(name) != flat.get(name) and not name.startswith(FREE)
    ]
    if any(change.startswith('model.') for change in changes):
      raise UserError(
        f'{workdir} holds another model ({"; ".join(changes)}): take another workdir.'
      )
    if changes and not allow:
      raise UserError(
        f'{workdir} was run with another config ({"; ".join(changes)}): take another '
        'workdir, or --allow_config_change to go on with the new one.'
      )
    if changes and first:
      print(f'accepted config changes: {"; ".join(changes)}')
  if not first:
    return
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    write_json(path, config)
    about = {'images': len(dataset.examples), 'classes': dataset.class_names}
    write_json(workdir / 'run.json', surroundings(mesh) | {'dataset': about})
  except OSError as error:
    raise UserError(
      f'--workdir={workdir} cannot be written: {error.strerror}.'
    ) from error


def flatten(tree: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  flat: dict[str, Any] = {}
  for key, value in tree.items():
    if isinstance(value, Mapping):
      flat |= flatten(value, f'{prefix}{key}.')
    else:
      flat[f'{prefix}{key}'] = value
  return flat


def write_json(path: Path, value: Any) -> None:
  write_text(path, json.dumps(value, indent=2) + '\n')


def write_text(path: Path, text: str) -> None:
  """Atomically."""
  part = path.with_suffix('.part')
  part.write_text(text)
  os.replace(part, path)


def surroundings(mesh: Mesh) -> dict[str, Any]:
  """Versions, devices and revision, for the record."""
  packages = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy')
  source = Path(__file__).parent
  revision = subprocess.run(
    ['git', 'rev-parse', 'HEAD'], cwd=source, capture_output=True, text=True
  )
  devices = list(mesh.devices.flat)
  return {
    'started': time.strftime('%Y-%m-%dT%H:%M:%S%z'),
    'gan_jax': gan_jax.__version__,
    'revision': revision.stdout.strip(),
    'python': platform.python_version(),
    'versions': {name: importlib.metadata.version(name) for name in packages},
    'devices': len(devices),
    'device_kind': devices[0].device_kind,
    'processes': jax.process_count(),
    'xla_flags': os.environ.get('XLA_FLAGS', ''),
  }


class Stop:
  """Ctrl-C or SIGTERM on any process stops all of them at one and the same step."""

  def __init__(self):
    self.idle = True  # nothing would be lost: no need to wait for a step
    self._signal = False

  def __enter__(self):
    self._before = {}
    if jax.process_count() == 1:  # else jax takes note of SIGTERM
      for name in (signal.SIGINT, signal.SIGTERM):
        self._before[name] = signal.signal(name, self._note)
    return self

  def __exit__(self, *_):
    for name, handler in self._before.items():
      signal.signal(name, handler)

  def _note(self, *_: Any) -> None:
    if self.idle:
      raise Stopped
    if self._signal:
      raise KeyboardInterrupt  # asked twice: at once
    self._signal = True
    tqdm.write('stopping: saving first')

  def asked(self, step: int) -> bool:
    """To be asked before every step; with several processes at each number of one."""
    if jax.process_count() > 1:
      return multihost_utils.reached_preemption_sync_point(step)
    return self._signal


def read_lines(path: Path) -> list[dict[str, Any]]:
  """JSON lines up to the first that is not whole, as a kill may leave the last."""
  lines: list[dict[str, Any]] = []
  with contextlib.suppress(FileNotFoundError, ValueError):
    for text in path.read_text().splitlines():
      lines.append(json.loads(text))
  return lines


class Journal:
  """Progress bar, JSON lines and TensorBoard, on the first process.

  Lines beyond the images of a resumed run are cut: the journal is that of one run.
  A full disk costs lines, not the run.
  """

  def __init__(
    self,
    workdir: Path,
    total: int,
    images: int,
    active: bool,
    say: Callable[[str], Any],
  ):
    self._active, self._say, self._told = active, say, False
    self._total, self._seen = total, images
    self._mark = images, time.perf_counter()
    self._path, self._events = workdir / 'metrics.jsonl', workdir / 'tensorboard'
    self.lines: list[dict[str, Any]] = []  # that were there, on the first process
    self._board: EventsWriter | None = None
    if active:
      self.lines = [x for x in read_lines(self._path) if x['images'] <= images]
      text = ''.join(json.dumps(line) + '\n' for line in self.lines)
      if self._path.is_file() and self._path.read_text() != text:
        write_text(self._path, text)
    self._bar = tqdm(
      total=total, initial=images, unit='img', disable=not active, smoothing=0.1
    )

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self._bar.close()
    if self._board:
      with self._forgiving():
        self._board.close()

  @contextlib.contextmanager
  def _forgiving(self):
    try:
      yield
    except OSError as error:
      if not self._told:
        self._say(f'{self._path} could not be written ({error.strerror}): going on')
      self._told = True

  def note(self, line: dict[str, Any]) -> None:
    """Writes a line; `draw` gets its numbers."""
    if not self._active:
      return
    with self._forgiving(), self._path.open('a') as f:
      f.write(json.dumps(line) + '\n')
    self.draw(line['images'], {n: x for n, x in line.items() if n != 'images'})

  def draw(self, images: int, values: Mapping[str, Any]) -> None:
    """Scalars for TensorBoard; what is no number is left out."""
    numbers = {n: x for n, x in values.items() if isinstance(x, int | float)}
    if not self._active or not numbers:
      return
    with self._forgiving():
      if self._board is None:
        self._events.mkdir(exist_ok=True)
        name = f'.{time.time_ns()}'
        self._board = EventsWriter(str(self._events / 'events'), name)
        # TensorBoard forgets what an earlier process wrote beyond this.
        start = SessionLog(status=SessionLog.START)
        self._board.write_event(Event(step=images, session_log=start))
      summary = Summary(
        value=[Summary.Value(tag=n, simple_value=x) for n, x in numbers.items()]
      )
      event = Event(step=images, wall_time=time.time(), summary=summary)
      self._board.write_event(event)
      self._board.flush()

  def add(
    self, images: int, metrics: Any, every: int, watcher: watch.Watcher
  ) -> dict[str, float]:
    """Waits for a step's metrics; writes them where a multiple of `every` is passed.

    What is not finite is left out: JSON has no word for it, and `skipped` says so.
    """
    values = {name: float(x) for name, x in jax.device_get(metrics).items()}
    self._bar.update(images - self._seen)
    before, self._seen = self._seen, images
    if not crossed(before, images, every) or not self._active:
      return values
    then, since = self._mark
    now = time.perf_counter()
    self._mark = images, now
    found = {name: x for name, x in values.items() if math.isfinite(x)}
    line = {'images': images, **found, 'images_per_s': (images - then) / (now - since)}
    watcher.see(line)
    self.note(line)
    self._bar.set_postfix(
      {n: f'{v:.2f}' for n, v in found.items() if n.startswith(('d_real', 'd_fake'))}
    )
    return values


class Sheets:
  """Pictures of the averaged generator from noise that never changes.

  A conditional model gets a row for each of its first classes.
  """

  def __init__(
    self, recipe: Recipe, workdir: Path, active: bool, say: Callable[[str], Any]
  ):
    self._say = say
    gan, log = recipe.gan, recipe.log
    rows, self._columns = log.sheet_rows, log.sheet_columns
    n = rows * self._columns
    self._folder, self._active = workdir / 'sheets', active
    # Every process draws for itself on its own first device: no collectives here.
    mesh = make_mesh(jax.local_devices()[:1])
    self._sampler = functools.cache(functools.partial(sample.make_sampler, gan, mesh))
    seeds = np.arange(n, dtype=np.uint32)
    z = sample.latents(seeds, gan.dim_z)
    labels = np.arange(n) // self._columns % max(gan.n_classes, 1)
    classes = np.eye(max(gan.n_classes, 1), dtype=np.float32)[labels]
    self._inputs = z, classes, np.float32(1), seeds

  def prepare(self, state: Any, res: int) -> None:
    """Compiles the sampler of a resolution, from the shapes of a state."""
    if self._active:
      mine = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state.ema)
      self._sampler(res).lower(mine, *self._inputs, np.float32(1)).compile()

  def write(self, ema: Any, images: int, phase: Phase) -> float:
    """The sheet of the phase that has just trained; how much its pictures vary."""
    if not self._active:
      return 0.0
    mine = jax.tree.map(lambda x: x.addressable_data(0), ema)
    drawn = np.asarray(self._sampler(phase.res)(mine, *self._inputs, phase.alpha))
    page = sample.sheet(drawn, self._columns)
    try:
      self._folder.mkdir(exist_ok=True)
      page.save(self._folder / f'{images:010d}.png')
    except OSError as error:
      self._say(f'{self._folder} could not be written ({error.strerror}): going on')
    return watch.diversity(drawn, self._columns)
