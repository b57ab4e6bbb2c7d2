"""The training loop, the only one."""

import functools
import importlib.metadata
import json
import os
import platform
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from tensorboardX import SummaryWriter
from tqdm import tqdm

import gan_jax
from gan_jax import UserError, data, sample
from gan_jax.checkpoint import Checkpoints
from gan_jax.gan import Phase
from gan_jax.recipe import Recipe
from gan_jax.stages import Stages
from gan_jax.step import TrainState, init_state, make_mesh, make_reset, replicate

# A resumed run may differ in these without being another run.
FREE = ('train.images', 'log.', 'data.threads', 'data.data_dir', 'train.mapped')


def train(
  recipe: Recipe,
  config: Mapping[str, Any],
  workdir: str | Path,
  allow_config_change: bool = False,
) -> TrainState:
  """Trains to `recipe.train.images`, from the newest checkpoint of `workdir` if any.

  The workdir gets config.json, run.json, metrics.jsonl, sheets/, checkpoints/ and
  TensorBoard's events. Ctrl-C and SIGTERM save and return.

  Raises:
    UserError: before anything is compiled; one sentence.
  """
  workdir, mesh = Path(workdir), make_mesh()
  gan, train_, log = recipe.gan, recipe.train, recipe.log
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
  prepare_workdir(workdir, config, mesh, allow_config_change, first)

  g_tx, d_tx = recipe.g_adam.transform(), recipe.d_adam.transform()
  key = jax.random.key(train_.seed)
  checkpoints = Checkpoints(workdir, log.keep)
  state = start_state(gan, g_tx, d_tx, key, mesh, checkpoints)
  images = int(state.images)
  reset = make_reset(g_tx, d_tx, mesh)
  say = tqdm.write if first else lambda *_: None
  say(
    f'{recipe.data.name}: {len(dataset.examples)} images, {dataset.n_classes} classes; '
    f'{mesh.size} {jax.devices()[0].platform} device(s); '
    + (f'resuming at image {images}' if images else 'starting')
    + '; the first step compiles and may take a minute or more'
  )
  sheets = Sheets(recipe, workdir, first)
  stages = Stages(recipe, dataset, mesh, state, key, also=sheets.prepare)
  with Journal(workdir, train_.images, images, first) as journal, stages:
    stop = Stop()
    pending: tuple[int, Any] | None = None
    now = stages.enter(images)
    while images < train_.images and not stop.asked(images):
      phase = recipe.schedule.phase_at(images, gan.res)
      since = time.perf_counter()
      changed = phase.res != now.res
      if changed:
        now = stages.enter(images)
      state, metrics = now.step(state, next(now.batches), key, phase)
      if changed:
        took = time.perf_counter() - since
        journal.note(images, {'res': now.res, 'change_s': took, **now.opening})
        say(
          f'image {images}: {now.res} x {now.res} from here on; the change took '
          f'{took:.2f} s, its compile beforehand {now.opening["compile_s"]:.1f} s'
        )
      if pending:  # of the step before: the devices never wait for the host
        journal.add(*pending, log.metrics_every)
      before, images = images, images + now.images_per_step
      pending = images, metrics | {'res': phase.res, 'alpha': phase.alpha}
      if recipe.schedule.resets_between(before, images):
        state = reset(state)
      grows = recipe.schedule.phase_at(images, gan.res).res != phase.res
      if grows:  # the end of a stage: everything of it is written
        journal.add(*pending, 1)
        pending = None
      if grows or crossed(before, images, log.sheet_every):
        sheets.write(state.ema, images, phase)
      if grows or crossed(before, images, log.checkpoint_every):
        checkpoints.save(int(state.step), state)
    if pending:
      journal.add(*pending, 1)
  if images and checkpoints.latest() != int(state.step):
    checkpoints.save(int(state.step), state)
    sheets.write(state.ema, images, phase)
  checkpoints.wait()
  checkpoints.close()
  verdict = 'finished' if images >= train_.images else 'stopped; resume with the same'
  say(
    f'{verdict} at image {images}: pictures in {workdir}/sheets, curves in '
    f'{workdir}/metrics.jsonl (tensorboard --logdir={workdir}); next: python -m '
    f'gan_jax.sample --workdir={workdir} --seeds=0-63 --out=sheet.png'
  )
  return state


def crossed(before: int, after: int, every: int) -> bool:
  """Whether a multiple of `every` lies in (before, after]."""
  return after // every > before // every


def start_state(
  gan: Any, g_tx: Any, d_tx: Any, key: jax.Array, mesh: Mesh, checkpoints: Checkpoints
) -> TrainState:
  """The newest checkpoint, or a fresh state; replicated over the mesh."""

  def fresh():
    return init_state(gan, g_tx, d_tx, jax.random.fold_in(key, 2**31 - 1))

  latest = checkpoints.latest()
  if latest is None:
    return replicate(jax.jit(fresh)(), mesh)
  sharding = NamedSharding(mesh, P())
  like = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
    jax.eval_shape(fresh),
  )
  return checkpoints.restore(latest, like)


def prepare_workdir(
  workdir: Path, config: Mapping[str, Any], mesh: Mesh, allow: bool, first: bool
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
    write_json(workdir / 'run.json', surroundings(mesh))
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
  """Atomically."""
  part = path.with_suffix('.part')
  part.write_text(json.dumps(value, indent=2) + '\n')
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
    self._signal = False
    if jax.process_count() == 1:
      for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, self._note)

  def _note(self, *_: Any) -> None:
    if self._signal:
      raise KeyboardInterrupt  # asked twice: at once
    self._signal = True
    tqdm.write('stopping: saving first')

  def asked(self, images: int) -> bool:
    if jax.process_count() > 1:
      return multihost_utils.reached_preemption_sync_point(images)
    return self._signal


class Journal:
  """Progress bar, JSON lines and TensorBoard, on the first process."""

  def __init__(self, workdir: Path, total: int, images: int, active: bool):
    self._active = active
    self._total, self._seen = total, images
    self._mark = images, time.perf_counter()
    if active:
      self._lines = (workdir / 'metrics.jsonl').open('a')
      self._board = SummaryWriter(str(workdir / 'tensorboard'))
    self._bar = tqdm(
      total=total, initial=images, unit='img', disable=not active, smoothing=0.1
    )

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self._bar.close()
    if self._active:
      self._lines.close()
      self._board.close()

  def note(self, images: int, event: dict[str, Any]) -> None:
    """Writes a line that is not of a step."""
    if self._active:
      self._lines.write(json.dumps({'images': images, **event}) + '\n')

  def add(self, images: int, metrics: Any, every: int) -> None:
    """Waits for a step's metrics; writes them where a multiple of `every` is passed."""
    values = {name: float(x) for name, x in jax.device_get(metrics).items()}
    self._bar.update(images - self._seen)
    before, self._seen = self._seen, images
    if not crossed(before, images, every) or not self._active:
      return
    then, since = self._mark
    now = time.perf_counter()
    self._mark = images, now
    line = {'images': images, **values, 'images_per_s': (images - then) / (now - since)}
    self._lines.write(json.dumps(line) + '\n')
    self._lines.flush()
    for name, value in line.items():
      if name != 'images':
        self._board.add_scalar(name, value, images)
    self._bar.set_postfix(
      {n: f'{v:.2f}' for n, v in values.items() if n.startswith(('d_real', 'd_fake'))}
    )


class Sheets:
  """Pictures of the averaged generator from noise that never changes.

  A conditional model gets a row for each of its first classes.
  """

  def __init__(self, recipe: Recipe, workdir: Path, active: bool):
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

  def write(self, ema: Any, images: int, phase: Phase) -> None:
    """The sheet of the phase that has just trained."""
    if not self._active:
      return
    mine = jax.tree.map(lambda x: x.addressable_data(0), ema)
    drawn = np.asarray(self._sampler(phase.res)(mine, *self._inputs, phase.alpha))
    self._folder.mkdir(exist_ok=True)
    page = sample.sheet(drawn, self._columns)
    page.save(self._folder / f'{images:010d}.png')
