"""What object stores cost a run: half a minute without answers, and mirroring."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from broken import GROWING
from stores import Place, places

from gan_jax.config import load_config
from gan_jax.storage.working_copy import SEAL, open_workdir, working_copy
from gan_jax.training.optimizers import make_optimizer
from gan_jax.training.train_state import init_state

from launch import equal

LONG_STEPS = 2000
LONG = (  # for some 40 s on two cores
  *GROWING,
  f'--config.train.images={8 * LONG_STEPS}',
  '--config.log.checkpoint_every=800',
  '--config.log.grid_every=8000',
)
OUTAGE = 30.0  # seconds

SHIPPED = {  # config -> images a second, as experiments/scaling_study predicts
  'biggan_imagenet:128': ('v5e:16x16', 99_152),
  'biggan_imagenet:256': ('v4:4x4x8', 14_173),
  'biggan_cifar10': ('v5e:1x1', 7_009),
  'stylegan_ffhq': ('v5e:2x4', 25),
}
EACH_MINUTE = {  # bytes at the end of a long run of the files that change each minute
  'metrics.jsonl': 2 << 20,
  'events.tfevents': 2 << 20,
  'report.html': 4 << 20,
  'starts.jsonl': 1 << 12,
}
SAMPLE = 256 << 20  # bytes of the checkpoint whose upload is timed


class Outage:
  """The answers of a store for OUTAGE seconds, from `begin` on.

  Attributes:
    requests: their number meanwhile.
    after: seconds from its end to the next request.
  """

  def __init__(self, status: int):  # 0: as if nothing happened
    self._status, self._began = status, float('inf')
    self.requests, self.after = 0, 0.0

  def begin(self) -> None:
    self._began = time.monotonic()

  def __call__(self, method: str, path: str) -> int:
    since = time.monotonic() - self._began
    if 0 <= since < OUTAGE:
      self.requests += 1
      return self._status
    if since >= OUTAGE and not self.after:
      self.after = since - OUTAGE
    return 0


def outages(scratch: Path) -> list[dict]:
  """A store that answers 429 or 503 for half a minute in the middle of training."""
  rows = []
  for place in places(scratch):
    whole = place.undisturbed('long', LONG_STEPS, *LONG)
    for status in (0, 429, 503):
      place.store.delete(list(place.store.list()))
      outage = Outage(status)
      place.gate.refusal = outage
      process = place.start(*LONG)
      place.await_step(LONG_STEPS // 4, process)
      outage.begin()
      code = process.wait()
      place.gate.refusal = lambda *_: 0
      (session,) = place.lines('starts.jsonl', 'seconds')
      rows.append(
        {
          'store': place.scheme,
          'status': status or 'none',
          'requests': outage.requests,
          'asked_again_after_s': round(outage.after, 1) if status else '',
          'training_s': session['seconds']['training'],
          'waited_to_save_s': session['seconds'].get('saving', 0),
          'code': code,
          'equal': equal(place.arrays(LONG_STEPS), whole),
        }
      )
      print(rows[-1], flush=True)
  return rows


def mirroring(scratch: Path, rng: np.random.Generator) -> list[dict]:
  """Seconds and PUTs of each kind of mirroring, times its number in an hour."""
  rows = []
  for place in places(scratch):
    puts = [cost[2] for cost in _measure(place, rng, 1)]
    os.environ.update(place.gate.server)  # the gate would take most of the time
    (beat, _), (minute, _), (upload, _) = costs = [
      cost[:2] for cost in _measure(place, rng, 5)
    ]
    for name, (devices, images_per_second) in SHIPPED.items():
      config = load_config(name)
      per_hour = 3600 * images_per_second / config.log.checkpoint_every
      size = _state_bytes(config)
      counts = np.array([240, 60, per_hour])
      wall, cpu = (counts * [1, 1, size / SAMPLE]) @ np.array(costs)
      rows.append(
        {
          'store': place.scheme,
          'config': name,
          'devices': devices,
          'checkpoints_per_hour': round(per_hour, 1),
          'gigabytes': round(size / 1e9, 2),
          'beat_s': round(beat, 3),
          'minute_s': round(minute, 3),
          'checkpoint_s': round(upload * size / SAMPLE, 1),
          'puts_per_hour': round(float(counts @ puts)),
          'in_threads_s_per_hour': round(float(wall)),
          'cpu_s_per_hour': round(float(cpu)),
          # A save waits for the upload of the one before it.
          'waited_s_per_hour': round(max(0, per_hour * upload * size / SAMPLE - 3600)),
        }
      )
      print(rows[-1], flush=True)
  return rows


def _measure(
  place: Place, rng: np.random.Generator, times: int
) -> list[tuple[float, float, float]]:
  """Seconds, CPU seconds and PUTs of a sign of life, a minute's push and SAMPLE."""

  def mean(call: Callable[[], None]) -> tuple[float, float, float]:
    place.gate.requests.clear()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(times):
      call()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    puts = sum(method in ('PUT', 'POST') for method, _, _ in place.gate.requests)
    return wall / times, cpu / times, puts / times

  for i in range(300):  # sample grids of a long run, which a sign of life lists too
    place.store.write(f'samples/{i}.png', b'')
  contents = {name: rng.bytes(size) for name, size in EACH_MINUTE.items()}
  with open_workdir(place.url, write=True) as folder:
    copy = working_copy(folder)

    def change_and_push() -> None:
      for name, content in contents.items():
        (folder / name).write_bytes(content)
      copy.push()

    arrays = folder / 'checkpoints' / '1' / 'default' / 'd'
    arrays.mkdir(parents=True, exist_ok=True)
    for i in range(8):
      (arrays / str(i)).write_bytes(rng.bytes(SAMPLE // 8))
    (folder / 'checkpoints' / '1' / SEAL).write_text('{}')
    return [mean(copy._beat), mean(change_and_push), mean(lambda: copy.commit(1))]


def _state_bytes(config) -> int:
  """Bytes of a checkpoint: weights, EMA weights and the optimizers' moments."""
  optimizers = make_optimizer(config.g_adam), make_optimizer(config.d_adam)
  state = jax.eval_shape(
    lambda key: init_state(config.gan, *optimizers, key), jax.random.key(0)
  )
  return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
