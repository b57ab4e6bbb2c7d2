"""What the training step's program must stay like: types, collectives, donation."""

import importlib
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


def tiny(name, **model):
  config = importlib.import_module(f'configs.{name}').get_config('tiny').to_dict()
  config['model'] |= model
  return parse_config(config)


def equations(jaxpr):
  """All equations of a jaxpr, and of those within."""
  for eqn in jaxpr.eqns:
    yield eqn
    for value in eqn.params.values():
      for inner in value if isinstance(value, list | tuple) else (value,):
        inner = getattr(inner, 'jaxpr', inner)
        if hasattr(inner, 'eqns'):
          yield from equations(inner)


def traced(read, platform, devices=2):
  """The step's equations as they are for a mesh of such devices, none of which is."""
  device = AbstractDevice(device_kind=platform, num_cores=1, platform=platform)
  mesh = AbstractMesh((devices,), (AXIS,), abstract_device=device)
  stage, txs = (
    read.stages[-1],
    (make_optimizer(read.g_adam), make_optimizer(read.d_adam)),
  )
  k, b, g_batch = read.shape(stage, devices)
  fixed = step.StepConfig(read.gan, *txs, g_batch=g_batch, d_steps=read.train.d_steps)

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
  state = jax.eval_shape(lambda: init_state(read.gan, *txs, jax.random.key(0)))
  shape = (devices, k, b, stage.res, stage.res, read.gan.channels)
  batch = Batch(
    jax.ShapeDtypeStruct(shape, np.uint8), jax.ShapeDtypeStruct(shape[:3], np.int32)
  )
  key = jax.eval_shape(lambda: jax.random.key(0))
  phase = read.schedule.phase_at(stage.after + 1, read.gan.res)
  return list(equations(jax.make_jaxpr(mapped)(state, batch, key, phase).jaxpr))


@pytest.mark.parametrize('platform', ['cpu', 'tpu', 'gpu'])
def test_no_wide_convolution_under_bfloat16(platform):
  found = traced(tiny('biggan_imagenet'), platform)
  types = [
    {str(x.aval.dtype) for x in eqn.invars}
    for eqn in found
    if eqn.primitive.name == 'conv_general_dilated'
  ]
  assert len(types) > 50
  assert all(t == {'bfloat16'} for t in types)


def test_the_forms_differ_where_devices_do():
  counts = {
    platform: sum(
      eqn.primitive.name == 'conv_general_dilated'
      for eqn in traced(tiny('biggan_imagenet'), platform)
    )
    for platform in ('cpu', 'tpu', 'gpu')
  }
  # Pooled shortcuts are convolutions on a TPU; doubled and halved maps are products on
  # a CPU; elsewhere what the paper says.
  assert counts['tpu'] > counts['gpu'] > counts['cpu']


@pytest.fixture(scope='module')
def compiled():
  """The tiny ImageNet step for four devices, its optimizers cut, and its text."""
  before, sharding.MIN_SHARDED_SIZE = sharding.MIN_SHARDED_SIZE, 256
  try:
    read = tiny('biggan_imagenet')
    mesh = make_mesh(jax.devices()[:4])
    stage, txs = (
      read.stages[0],
      (make_optimizer(read.g_adam), make_optimizer(read.d_adam)),
    )
    run = make_train_step(read.gan, *txs, mesh, d_steps=2, g_batch=2, mapped='jit')
    args = stage_cost.step_inputs(read, stage, mesh)
    program = run.lower(*args).compile()
    return args[0], program, hlo.parse(program.as_text())
  finally:
    sharding.MIN_SHARDED_SIZE = before


def test_collectives(compiled):
  state, _, text = compiled
  found = {c['kind']: c for c in hlo.collectives(text, devices=4)}
  large = [
    x
    for x in jax.tree.leaves((state.d['params'], state.d['params'], state.g['params']))
    if x.size >= 256 and any(s % 4 == 0 for s in x.shape[-2:])
  ]
  # Each of three updates scatters the gradients of large weights and gathers these.
  assert found['reduce-scatter']['bytes'] == sum(4 * x.size for x in large)
  assert found['all-gather']['bytes'] == sum(4 * x.size for x in large)


def test_the_state_is_donated(compiled):
  state, program, text = compiled
  memory = program.memory_analysis()
  assert hlo.donated_arrays(text) >= len(jax.tree.leaves(state)) - 1
  assert memory.alias_size_in_bytes > 0.95 * memory.output_size_in_bytes


LIBTPU = '0.0.42.1'  # another one may estimate otherwise


@pytest.mark.skipif(
  {d.version for d in importlib.metadata.distributions(name='libtpu')} != {LIBTPU},
  reason=f"needs pip install '.[plan]', with libtpu {LIBTPU}",
)
@pytest.mark.parametrize(
  ('name', 'cycles'),
  [
    ('biggan_imagenet', [4_704_562]),
    ('progan_emoji', [639_949, 1_139_159]),
    ('stylegan_emoji', [758_382, 1_287_795]),
  ],
)
def test_estimated_cycles(name, cycles, tmp_path):
  """On four TPU chips: who means to change them writes down by how much."""
  root, told = Path(__file__).parents[2], tmp_path / 'plan.json'
  command = ['-m', 'gan_jax.plan', f'--config=configs/{name}.py:tiny']
  command += ['--topology=v5e:2x2', f'--json={told}', f'--cache={tmp_path}']
  env = {k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'}
  subprocess.run(
    [sys.executable, *command], cwd=root, env=env, check=True, stdout=subprocess.DEVNULL
  )
  found = [row['cycles'] for row in json.loads(told.read_text())]
  assert found == pytest.approx(cycles, rel=0.05)
