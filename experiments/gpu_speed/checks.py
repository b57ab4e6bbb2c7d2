"""Checks of gpu_speed that time nothing: numbers, and whole commands.

checks.py parity    one step of each family on the accelerator and on the CPU
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
import gan_jax  # noqa: F401  (before jax: sets its XLA flag)

# isort: split
import jax
import numpy as np
from gpu_cases import CASES

from gan_jax.config import parse_config
from gan_jax.models.base import Batch
from gan_jax.runtime.mesh import make_mesh
from gan_jax.runtime.sharding import replicate, shard_batch
from gan_jax.training.compile_step import compile_train_step
from gan_jax.training.first_weights import draw_weights
from gan_jax.training.stages import step_config
from gan_jax.training.train_state import init_state

BOUNDS = {'float32': 1e-4, 'bfloat16': 5e-2}


def parity(name: str) -> list[dict[str, Any]]:
  """Relative differences of metrics and of updated weights, a row a dtype.

  A step in exact float32 and one in bfloat16 on the first accelerator, against float32
  on the CPU, from the same weights, images and noise.
  """
  config, here = CASES[name](True)['config'], jax.devices()[0]
  exact, rows = one_step(config, 'float32', jax.devices('cpu')[0]), []
  for dtype, bound in BOUNDS.items():
    found = one_step(config, dtype, here)
    differences = {k: distance(found[k], exact[k]) for k in exact}
    rows.append(
      {
        'family': config['model']['family'],
        'dtype': dtype,
        'device': here.device_kind,
        **differences,
        'bound': bound,
        'ok': all(x <= bound for x in differences.values()),
      }
    )
  return rows


def one_step(config: dict[str, Any], dtype: str, device: Any) -> dict[str, np.ndarray]:
  """Metrics and weights after one step on a device, each as one vector."""
  config = json.loads(json.dumps(config))
  config['model']['dtype'] = dtype
  config['train']['matmul_precision'] = 'float32'
  parsed = parse_config(config)
  gan, mesh, (stage,) = parsed.gan, make_mesh([device]), parsed.stages
  fixed, key = step_config(parsed, stage, 1), jax.random.key(0)
  fresh = lambda key: init_state(gan, fixed.g_tx, fixed.d_tx, key)
  first = draw_weights(fresh, key)
  rng, (k, b, _) = np.random.default_rng(0), parsed.shape(stage, 1)
  shape = (1, k, b, gan.res, gan.res, 3)
  images = rng.integers(0, 256, shape, np.uint8)
  labels = rng.integers(0, max(gan.n_classes, 1), shape[:3]).astype(np.int32)
  batch = shard_batch(Batch(images, labels), mesh)
  step = compile_train_step(fixed, mesh)
  phase = parsed.schedule.phase_at(1, gan.res)
  with jax.default_device(device):
    state, metrics = step(replicate(first, mesh), batch, jax.device_put(key), phase)
  after = jax.tree.map(np.array, (state.g['params'], state.d['params']))
  values = np.asarray([float(x) for _, x in sorted(metrics.items())])
  weights = np.concatenate([np.ravel(x) for x in jax.tree.leaves(after)])
  return {'metrics': values, 'weights': weights}


def distance(x: np.ndarray, y: np.ndarray) -> float:
  """|x - y| / |y|."""
  return float(np.linalg.norm(x - y) / max(np.linalg.norm(y), 1e-30))


def main() -> None:
  p = argparse.ArgumentParser(description=__doc__)
  p.add_argument('case', choices=CASES)
  print(json.dumps(parity(p.parse_args().case)))


if __name__ == '__main__':
  main()
