"""What the training step's program must stay like: types, collectives, donation."""

import dataclasses
import functools
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh
from jax.sharding import PartitionSpec as P

from gan_jax.config import parse_config
from gan_jax.config.overrides import apply_overrides
from gan_jax.models.base import Batch
from gan_jax.plan import hlo, stage_cost
from gan_jax.runtime import environment, sharding
from gan_jax.runtime.mesh import AXIS, make_mesh
from gan_jax.training import step
from gan_jax.training.compile_step import compiler_options, make_train_step
from gan_jax.training.optimizers import make_optimizer
from gan_jax.training.stages import step_config
from gan_jax.training.train_state import init_state
from tests.models.growing import PROGAN
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


@functools.cache
def traced(config, platform, devices=2):
  """The training step for an abstract mesh of devices of a platform."""
  device = AbstractDevice(device_kind=platform, num_cores=1, platform=platform)
  mesh = AbstractMesh((devices,), (AXIS,), abstract_device=device)
  stage, gan = config.stages[-1], config.gan
  k, b, _ = config.shape(stage, devices)
  fixed = step_config(config, stage, devices)

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
  txs = fixed.g_tx, fixed.d_tx
  state = jax.eval_shape(lambda: init_state(gan, *txs, jax.random.key(0)))
  shape = (devices, k, b, stage.res, stage.res, gan.channels)
  batch = Batch(
    jax.ShapeDtypeStruct(shape, np.uint8), jax.ShapeDtypeStruct(shape[:3], np.int32)
  )
  key = jax.eval_shape(lambda: jax.random.key(0))
  phase = config.schedule.phase_at(stage.after + 1, gan.res)
  return jax.jit(mapped).trace(state, batch, key, phase)


@pytest.mark.parametrize(
  ('platform', 'accum', 'at_once'),
  [('cpu', 2, 2), ('cpu', 8, 8), ('cpu', 16, 1), ('tpu', 2, 1), ('gpu', 2, 1)],
)
def test_micro_batches_have_no_loop_on_a_cpu(biggan, platform, accum, at_once):
  keys = {'train.accum': str(accum), 'schedule.batch': str(2 * accum)}
  config = parse_config(apply_overrides(biggan.to_dict(), keys.items()))
  found = [
    eqn.params['unroll']
    for eqn in equations(traced(config, platform).jaxpr)
    if eqn.primitive.name == 'scan'
    and any('conv' in e.primitive.name for e in equations(eqn.params['jaxpr'].jaxpr))
  ]
  assert found == [at_once] * (config.train.d_steps + 1)  # one for each update


def equations_of(config, platform, name):
  """All equations of the training step that are called `name`."""
  jaxpr = traced(config, platform).jaxpr.jaxpr
  return [eqn for eqn in equations(jaxpr) if eqn.primitive.name == name]


@pytest.mark.parametrize('platform', ['cpu', 'tpu', 'gpu'])
def test_no_float32_convolution_under_bfloat16(biggan, platform):
  types = [
    {str(x.aval.dtype) for x in eqn.invars}
    for eqn in equations_of(biggan, platform, 'conv_general_dilated')
  ]
  assert len(types) > 50
  assert all(t == {'bfloat16'} for t in types)


def test_the_forms_differ_between_platforms(biggan):
  counts = {
    platform: len(equations_of(biggan, platform, 'conv_general_dilated'))
    for platform in ('cpu', 'tpu', 'gpu')
  }
  # Pooled shortcuts are convolutions on a TPU; on a CPU upsampling and downsampling
  # convolutions are matrix products.
  assert counts['tpu'] > counts['gpu'] > counts['cpu']


@pytest.fixture(scope='module')
def cuda():
  """The values of the step lowered for two NVIDIA GPUs: name -> line that defines it.

  With attention, enough images for the forms of large batches, and exact float32.
  """
  config = biggan_32px.get_config()
  config.schedule.batch = 256
  config.model.g_attention = config.model.d_attention = (16,)
  config.model.g_ch = config.model.d_ch = 16
  config.train.matmul_precision = 'float32'
  lowered = traced(parse_config(config.to_dict()), 'gpu')
  text = lowered.lower(lowering_platforms=('cuda',)).as_text()
  values = {}
  for i, function in enumerate(text.split('func.func ')):
    for line in function.splitlines():
      if found := re.match(r' *(%\w+)(?::\d+)? = (.*)', line):
        values[i, found[1]] = found[2]
  return values


def test_gpu_attention_is_cudnns_and_loops_over_no_images(cuda):
  lines = list(cuda.values())
  calls = [line for line in lines if '@__cudnn$fmhaSoftmax(' in line]
  gradients = [line for line in lines if '@__cudnn$fmhaSoftmaxBackward(' in line]
  # Of two D steps and one G step; a gradient computes its attention again, which XLA
  # merges with the first.
  assert (len(calls), len(gradients)) == (10, 4)
  assert not [line for line in lines if 'stablehlo.while' in line]


def test_a_gpu_convolves_no_upsampled_or_dilated_map(cuda):
  def origin(function, name):
    line = cuda.get((function, name), '')
    return line, re.findall(r'%\w+', line)

  dilated = convolutions = 0
  for (function, _), line in cuda.items():
    if not line.startswith('stablehlo.convolution'):
      continue
    convolutions += 1
    x, kernel = re.findall(r'%\w+', line)[:2]
    source, _ = origin(function, x)
    # An upsampled map is a broadcast to [b, h, 2, w, 2, c], reshaped.
    assert not re.search(r'reshape.*tensor<\d+x\d+x2x\d+x2x', source)
    if 'lhs_dilate = [2, 2]' in line:
      dilated += 1
      source, (folded, *_) = origin(function, kernel)
      assert source.startswith('stablehlo.reverse')
      assert 'optimization_barrier' in origin(function, folded)[0]
  assert convolutions > 50 and dilated > 10


def test_the_config_states_the_matmul_precision(biggan, cuda):
  convolutions = [x for x in cuda.values() if x.startswith('stablehlo.convolution')]
  assert all(x.count('precision HIGHEST') == 2 for x in convolutions)
  by_default = equations_of(biggan, 'gpu', 'conv_general_dilated')
  assert {eqn.params['precision'] for eqn in by_default} == {None}


def test_a_gan_with_maps_in_blocks_has_compiler_options_on_a_tpu(biggan):
  large, small = (
    dataclasses.replace(PROGAN, res=res, g_widths=(), d_widths=()) for res in (256, 128)
  )
  tpu, cpu = (
    SimpleNamespace(devices=np.array([SimpleNamespace(platform=p)]), size=1)
    for p in ('tpu', 'cpu')
  )
  options = compiler_options(large, tpu)
  assert options and options == environment.tpu_compiler_options()
  others = (large, cpu), (small, tpu), (biggan.gan, tpu)
  assert [compiler_options(*other) for other in others] == [None] * 3


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
    ('tests/training/programs/progan_256px.py', [12_846_085]),  # in blocks of pixels
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
