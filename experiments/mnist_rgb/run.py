"""How many of 1,000 modes does a generator cover? See README.md."""

import argparse
import csv
import math
import time
from pathlib import Path
from typing import Any

import gan_jax  # noqa: F401  (before jax: sets its XLA flag)

# isort: split
import jax
import jax.numpy as jnp
import numpy as np
from digits import SIDE, classify, load_classifier, read_mnist
from flax import serialization
from networks import DIM_Z, CrippledGAN

from gan_jax.config.optimizers import AdamConfig
from gan_jax.models.base import Batch, Phase
from gan_jax.runtime.environment import keep_freed_memory
from gan_jax.runtime.mesh import make_mesh
from gan_jax.sampling.samplers import make_sampler
from gan_jax.storage.files import atomic_path
from gan_jax.storage.json_lines import append_json_lines, read_json_lines
from gan_jax.training.compile_step import make_train_step
from gan_jax.training.optimizers import make_optimizer
from gan_jax.training.train_state import TrainState, init_state

# Of the Theano version of ProGAN's repository, config.py, appendix E.
BATCH, D_STEPS, RATE, WARMUP, EMA = 64, 5, 1e-3, 40_000, 0.999
SAMPLES = 25_600
SAVE_EVERY = 250  # iterations


def stack_digits(digits: np.ndarray, choice: np.ndarray) -> np.ndarray:
  """Images uint8 [..., 32, 32, 3] whose channels are the chosen digits [..., 3]."""
  return np.moveaxis(digits[choice], -3, -1)


def train(
  gan: CrippledGAN, digits: np.ndarray, workdir: Path, images: int, seed: int
) -> TrainState:
  """Trains for `images` real images, from the checkpoint if there is one."""
  mesh = make_mesh(jax.devices()[:1])
  tx = make_optimizer(AdamConfig(beta1=0.0, beta2=0.99, tf_eps=True))
  key = jax.random.key(seed)
  state = init_state(gan, tx, tx, key)
  path, log = workdir / 'state.msgpack', workdir / 'metrics.jsonl'
  if path.is_file():
    stored = serialization.from_bytes(state, path.read_bytes())
    state = jax.tree.map(jnp.asarray, stored)
  step = make_train_step(gan, tx, tx, mesh, g_batch=BATCH, d_steps=D_STEPS)
  lines = read_json_lines(log)
  seconds, last = lines[-1]['seconds'] if lines else 0.0, time.perf_counter()
  iterations = images // (BATCH * D_STEPS)
  for i in range(int(state.step), iterations):
    rng = np.random.default_rng((seed, i))
    choice = rng.integers(len(digits), size=(1, D_STEPS, BATCH, 3))
    labels = np.zeros((1, D_STEPS, BATCH), np.int32)
    progress = min(i * BATCH * D_STEPS / WARMUP, 1.0)
    rate = np.float32(RATE * math.exp(-5 * (1 - progress) ** 2))
    phase = Phase(
      alpha=np.float32(1), g_lr=rate, d_lr=rate, ema=np.float32(EMA), res=SIDE
    )
    batch = Batch(stack_digits(digits, choice), labels)
    state, metrics = step(state, batch, key, phase)
    if (i + 1) % SAVE_EVERY == 0 or i + 1 == iterations:
      values: dict[str, Any] = {name: float(x) for name, x in metrics.items()}
      seconds, last = seconds + time.perf_counter() - last, time.perf_counter()
      values |= {'images': int(state.images), 'seconds': round(seconds, 1)}
      with atomic_path(path) as temporary:
        temporary.write_bytes(serialization.to_bytes(jax.device_get(state)))
      append_json_lines(log, [values])
      print(values, flush=True)
  return state


def sample(gan: CrippledGAN, g: Any, seed: int) -> np.ndarray:
  """Generated images uint8 [25600, 32, 32, 3], of the EMA weights."""
  sampler = make_sampler(gan, make_mesh(jax.devices()[:1]))
  rng, parts, n = np.random.default_rng((seed, 2**32)), [], 256
  for _ in range(SAMPLES // n):
    z = rng.standard_normal((n, DIM_Z)).astype(np.float32)
    no_classes, seeds = np.zeros((n, 0), np.float32), np.zeros(n, np.uint32)
    parts.append(np.asarray(sampler(g, z, no_classes, 1.0, seeds, 1.0)))
  return np.concatenate(parts)


def count_modes(classes: np.ndarray) -> tuple[int, float]:
  """Modes hit by the classes [n, 3] of images, and KL(histogram || uniform) in nats."""
  counts = np.bincount(classes @ (1, 10, 100), minlength=1000)
  p = counts[counts > 0] / counts.sum()
  return int((counts > 0).sum()), float((p * np.log(p * 1000)).sum())


def classes_of(params: Any, images: np.ndarray) -> np.ndarray:
  """The three digits of each image [n, 3]."""
  digits = np.moveaxis(images, -1, 1).reshape(-1, SIDE, SIDE)
  return classify(params, digits).reshape(-1, 3)


def write_grid(images: np.ndarray, path: Path, side: int = 12) -> None:
  """An image grid of the first side x side images, enlarged by two."""
  from PIL import Image

  grid = images[: side * side].reshape(side, side, SIDE, SIDE, 3)
  grid = grid.swapaxes(1, 2).reshape(side * SIDE, side * SIDE, 3)
  Image.fromarray(grid.repeat(2, 0).repeat(2, 1)).save(path)


def main() -> None:
  p = argparse.ArgumentParser(description=__doc__)
  p.add_argument('--mnist', type=Path, required=True, help="folder of MNIST's files")
  p.add_argument('--workdir', type=Path, required=True)
  p.add_argument('--divisor', type=int, default=4, help='K / divisor: 2 or 4')
  p.add_argument('--images', type=int, default=10_000_000, help='real images')
  p.add_argument('--seed', type=int, default=0)
  p.add_argument('--out', type=Path, default=Path(__file__).parent / 'results')
  args = p.parse_args()
  keep_freed_memory()
  args.workdir.mkdir(parents=True, exist_ok=True)
  digits, _ = read_mnist(args.mnist, 'train')
  gan = CrippledGAN(
    res=SIDE, dim_z=DIM_Z, drift=0.0, mbstd_group=BATCH, divisor=args.divisor
  )
  run = args.workdir / f'k{args.divisor}-seed{args.seed}'
  run.mkdir(exist_ok=True)
  state = train(gan, digits, run, args.images, args.seed)
  params = load_classifier(args.mnist, args.workdir / 'classifier.msgpack')
  held_out, labels = read_mnist(args.mnist, 't10k')
  error = float((classify(params, held_out) != labels).mean())
  fakes = sample(gan, state.ema, args.seed)
  choice = np.random.default_rng(0).integers(len(digits), size=(SAMPLES, 3))
  real_modes, real_kl = count_modes(classes_of(params, stack_digits(digits, choice)))
  modes, kl = count_modes(classes_of(params, fakes))
  row = {
    'divisor': args.divisor,
    'seed': args.seed,
    'images': int(state.images),
    'modes': modes,
    'kl': round(kl, 3),
    'modes_of_reals': real_modes,
    'kl_of_reals': round(real_kl, 3),
    'classifier_error': round(error, 4),
    'hours': round(read_json_lines(run / 'metrics.jsonl')[-1]['seconds'] / 3600, 2),
  }
  print(row)
  write_grid(fakes, args.out / f'k{args.divisor}-seed{args.seed}.png')
  with (args.out / f'k{args.divisor}-seed{args.seed}.csv').open('w', newline='') as f:
    writer = csv.DictWriter(f, row)
    writer.writeheader()
    writer.writerow(row)


if __name__ == '__main__':
  main()
