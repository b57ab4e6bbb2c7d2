"""What the training step's program must stay like: types, collectives, donation."""

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh
from jax.sharding import PartitionSpec as P

from gan_jax.config import parse_config
from gan_jax.models.base import Batch
from gan_jax.plan import hlo, stage_cost
from gan_jax.runtime import sharding
from gan_jax.runtime.mesh import AXIS, make_mesh
from gan_jax.training import step
from gan_jax.training.compile_step import make_train_step
from gan_jax.training.optimizers import make_optimizer
from gan_jax.training.train_state import init_state
from tests.training.programs import biggan_32px


@pytest.fixture(scope='module')
def biggan():
  return parse_config(biggan_32px.get_config().to_dict())


def equations(jaxpr):
  """All equations of a jaxpr and of the jaxprs inside it."""
  for eqn in jaxpr.eqns:
    yield eqn
    for value in eqn.params.values():
      for inner in value if isinstance(value, list | tuple) else (value,):
        inner = getattr(inner, 'jaxpr', inner)
        if hasattr(inner, 'eqns'):
          yield from equations(inner)


def traced(config, platform, devices=2):
  """Equations of the training step for an abstract mesh of devices of a platform."""
  device = AbstractDevice(device_kind=platform, num_cores=1, platform=platform)
  mesh = AbstractMesh((devices,), (AXIS,), abstract_device=device)
  txs = make_optimizer(config.g_adam), make_optimizer(config.d_adam)
  stage, gan = config.stages[-1], config.gan
  k, b, g_batch = config.shape(stage, devices)
  fixed = step.StepConfig(gan, *txs, g_batch=g_batch, d_steps=config.train.d_steps)

  def per_device(state, batch, key, phase):
    batch = jax.tree.map(lambda x: x[0], batch)
    return step.train_step(fixed, state, batch, key, phase)

  mapped = jax.shard_map(
    per_device,
    mesh=mesh,
    in_specs=(P(), P(AXIS), P(), P()),
    out_specs=P(),
    check_vma=False,
  )
  state = jax.eval_shape(lambda: init_state(gan, *txs, jax.random.key(0)))
  shape = (devices, k, b, stage.res, stage.res, gan.channels)
  batch = Batch(
    jax.ShapeDtypeStruct(shape, np.uint8), jax.ShapeDtypeStruct(shape[:3], np.int32)
  )
  key = jax.eval_shape(lambda: jax.random.key(0))
  phase = config.schedule.phase_at(stage.after + 1, gan.res)
  return list(equations(jax.make_jaxpr(mapped)(state, batch, key, phase).jaxpr))


@pytest.mark.parametrize('platform', ['cpu', 'tpu', 'gpu'])
def test_no_float32_convolution_under_bfloat16(biggan, platform):
  types = [
    {str(x.aval.dtype) for x in eqn.invars}
    for eqn in traced(biggan, platform)
    if eqn.primitive.name == 'conv_general_dilated'
  ]
  assert len(types) > 50
  assert all(t == {'bfloat16'} for t in types)


def test_the_forms_differ_between_platforms(biggan):
  counts = {
    platform: sum(
      eqn.primitive.name == 'conv_general_dilated' for eqn in traced(biggan, platform)
    )
    for platform in ('cpu', 'tpu', 'gpu')
  }
  # Pooled shortcuts are convolutions on a TPU; on a CPU upsampling and downsampling
  # convolutions are matrix products; a GPU takes the plain forms.
  assert counts['tpu'] > counts['gpu'] > counts['cpu']


@pytest.fixture(scope='module')
def compiled(biggan):
  """The step for four devices with sharded optimizer state, and its text."""
  before, sharding.MIN_SHARDED_SIZE = sharding.MIN_SHARDED_SIZE, 256
  try:
    mesh = make_mesh(jax.devices()[:4])
    txs = make_optimizer(biggan.g_adam), make_optimizer(biggan.d_adam)
    run = make_train_step(biggan.gan, *txs, mesh, d_steps=2, g_batch=2, mapped='jit')
    args = stage_cost.step_inputs(biggan, biggan.stages[0], mesh)
    program = run.lower(*args).compile()
    return args[0], program, hlo.parse(program.as_text())
  finally:
    sharding.MIN_SHARDED_SIZE = before


def test_collectives(compiled):
  state, _, text = compiled
  by_kind = {c['kind']: c for c in hlo.collectives(text, devices=4)}
  large = [
    x
    for x in jax.tree.leaves((state.d['params'], state.d['params'], state.g['params']))
    if x.size >= 256 and any(s % 4 == 0 for s in x.shape[-2:])
  ]
  # Each of three updates scatters gradients of large weights and gathers the weights.
  assert by_kind['reduce-scatter']['bytes'] == sum(4 * x.size for x in large)
  assert by_kind['all-gather']['bytes'] == sum(4 * x.size for x in large)


def test_the_state_is_donated(compiled):
  state, program, text = compiled
  memory = program.memory_analysis()
  assert hlo.donated_arrays(text) >= len(jax.tree.leaves(state)) - 1
  assert memory.alias_size_in_bytes > 0.95 * memory.output_size_in_bytes


LIBTPU = '0.0.42.1'  # another version may estimate other cycles


@pytest.mark.skipif(
  {d.version for d in importlib.metadata.distributions(name='libtpu')} != {LIBTPU},
  reason=f"needs pip install '.[plan]', with libtpu {LIBTPU}",
)
@pytest.mark.parametrize(
  ('config', 'cycles'),
  [
    ('tests/training/programs/biggan_32px.py', [4_704_562]),
    ('configs/progan_emoji.py:tiny', [639_949, 1_139_159]),
    ('configs/stylegan_emoji.py:tiny', [758_382, 1_287_795]),
  ],
)
def test_estimated_cycles(config, cycles, tmp_path):
  """On four TPU v5e devices. If you change these cycles, state by how much."""
  root, out = Path(__file__).parents[2], tmp_path / 'plan.json'
  command = ['-m', 'gan_jax.plan', f'--config={config}']
  command += ['--topology=v5e:2x2', f'--json={out}', f'--cache={tmp_path}']
  env = {k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'}
  subprocess.run(
    [sys.executable, *command], cwd=root, env=env, check=True, stdout=subprocess.DEVNULL
  )
  found = [row['cycles'] for row in json.loads(out.read_text())]
  assert found == pytest.approx(cycles, rel=0.05)
