"""The planner: what it reads off a compiled text, its own counts, and what it says."""

import dataclasses
import importlib
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import UserError
from gan_jax.config import parse_config
from gan_jax.plan import __main__ as cli
from gan_jax.plan import chips, flops, hlo, stage_cost
from gan_jax.runtime.mesh import make_mesh
from gan_jax.training.optimizers import make_optimizer

ROOT = Path(__file__).parents[2]
V5E = chips.CHIPS['v5e']

# Cut down from what the compiler wrote for a slice of four chips.
TEXT = (Path(__file__).parent / 'compiled' / 'v5e_2x2.hlo').read_text()


def test_cycles_by_layer_and_kind():
  program = hlo.parse(TEXT)
  assert program.entry == 'main.1'
  assert hlo.cycles(program) == 5000 + 700 + 3 * 100
  found = [tuple(g.values()) for g in hlo.grouped(program)]
  assert found == [
    ('Generator/block0/conv1', 'conv', 'backward', 5000),
    ('optimizer', 'copy', 'forward', 700),
    ('spectral_norm', 'dot', 'forward', 300),
  ]


def test_collectives_are_counted_in_what_a_ring_sends():
  reduced, scattered = hlo.collectives(hlo.parse(TEXT), devices=4)
  bytes_ = 2 * 16 * 4 + 64 * 4
  assert reduced == {
    'kind': 'all-reduce',
    'count': 2,
    'bytes': bytes_,
    'sent': bytes_ * 2 * 3 // 4,
  }
  # Two pairs: each chip keeps 100 of 200 bytes and sends the other half.
  assert scattered == {'kind': 'reduce-scatter', 'count': 1, 'bytes': 200, 'sent': 100}


def test_a_loop_goes_round_as_often_as_its_condition_says():
  counted = """HloModule m

%cond.1 (arg: (s32[], f32[4])) -> pred[] {
  %arg = (s32[]{:T(128)}, f32[4]{0}) parameter(0)
  %end = s32[]{:T(128)} constant(16)
  %other = s32[]{:T(128)} constant(5)
  %i = s32[]{:T(128)} get-tuple-element(%arg), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %end), direction=LT
}

%body.1 (arg.1: (s32[], f32[4])) -> (s32[], f32[4]) {
  %arg.1 = (s32[]{:T(128)}, f32[4]{0}) parameter(0)
  ROOT %add = f32[4]{0} add(%arg.1, %arg.1), backend_config={"estimated_cycles":"10"}
}

ENTRY %main (a: f32[4]) -> f32[4] {
  %a = f32[4]{0} parameter(0)
  ROOT %w = (s32[]{:T(128)}, f32[4]{0}) while(%a), condition=%cond.1, body=%body.1
}
"""
  assert hlo.cycles(hlo.parse(counted)) == 160
  assert hlo.cycles(hlo.parse(counted.replace('direction=LT', 'direction=NE'))) == 10


def test_a_collective_beside_other_work_is_one():
  gather = (
    '%g{} = f32[64]{{0}} all-gather(%p), channel_id=1, replica_groups={{{{0,1}}}}'
  )
  bodies = {
    'start': f'  {gather.format(1)}\n  ROOT %c = f32[64]{{0}} custom-call(%g1), '
    'custom_call_target="AsyncCollectiveStart"',
    'async_collective_fusion.7': f'  ROOT {gather.format(2)}',
    'done': f'  {gather.format(3)}\n  ROOT %d = f32[64]{{0}} custom-call(%g3), '
    'custom_call_target="AsyncCollectiveDone"',
    'plain': f'  ROOT {gather.format(4)}',
  }
  text = 'HloModule m\n' + ''.join(
    f'\n%{name} (p: f32[32]) -> f32[64] {{\n{body}\n}}\n'
    for name, body in bodies.items()
  )
  calls = '\n'.join(
    f'  %f{i} = f32[64]{{0}} fusion(%a), kind=kCustom, calls=%{name}'
    for i, name in enumerate(bodies)
  )
  text += f'\nENTRY %main (a: f32[32]) -> f32[64] {{\n{calls}\n}}\n'
  (found,) = hlo.collectives(hlo.parse(text), devices=2)
  assert found == {'kind': 'all-gather', 'count': 2, 'bytes': 512, 'sent': 256}


def test_tiles_are_padded():
  dims = 'bf16[8,16,16,96]{3,0,2,1:T(8,128)(2,1)}'
  assert list(hlo.arrays(dims)) == [
    ('bf16', 8 * 16 * 16 * 96 * 2, 8 * 16 * 16 * 128 * 2)
  ]
  assert list(hlo.arrays('(pred[3]{0:T(256)}, f32[])')) == [
    ('pred', 3, 256),
    ('f32', 4, 4),
  ]
  picture, product = 8 * 16 * 16 * 2, 256 * 4 * 3  # times channels; three turns
  assert hlo.padding(hlo.parse(TEXT)) == (
    2 * picture * 96 + product * 32,
    2 * picture * 128 + product * 128,
  )


def test_donation_and_types_of_products():
  program = hlo.parse(TEXT)
  assert hlo.donated(program) == 2
  assert hlo.convolutions(program) == {'conv bf16': 1, 'dot f32': 1}


@pytest.mark.parametrize(
  'path, layer',
  [
    (
      'jit(step)/shard_map/jvp(Generator)/block0/bn1/stats/psum',
      'Generator/block0/bn1',
    ),
    ('jit(step)/transpose(jvp(Discriminator))/block1/add', 'Discriminator/block1'),
    ('jit(step)/shard_map/jit(_normal)/add', '(none)'),
    ('', '(none)'),
  ],
)
def test_layers_are_told_from_paths(path, layer):
  assert hlo.layer(path) == layer


def config(name, variant=''):
  return importlib.import_module(f'configs.{name}').get_config(variant).to_dict()


def test_flops_agree_with_a_count_by_hand():
  # A plain 16 px BigGAN, of which every product is written down here.
  values = config('biggan_digits', 'tiny')
  values['model'] |= dict(g_widths=(2, 2, 1), d_widths=(1, 2, 2), g_attention=())
  values['model'] |= dict(d_attention=(), g_ch=8, d_ch=8, res=16)
  read = parse_config(values)
  gan, t, (stage,) = read.gan, read.train, read.stages
  b = stage.batch
  conv = lambda size, inputs, outputs, k=3: 2 * (size * k) ** 2 * inputs * outputs
  g = 2 * gan.dim_z // 3 * 16 * 16
  condition = gan.dim_z // 3 + (gan.shared_dim if gan.n_classes else 0)
  for size, inputs, outputs in ((8, 16, 16), (16, 16, 8)):
    g += conv(size, inputs, outputs) + conv(size, outputs, outputs)
    g += conv(size // 2, inputs, outputs, 1)
    g += 2 * 2 * condition * (inputs + outputs)  # gains and biases of two norms
  g += conv(16, 8, gan.channels)
  d = raw = 0
  for size, inputs, outputs in ((16, gan.channels, 8), (8, 8, 16), (4, 16, 16)):
    down = size > 4
    d += conv(size, inputs, outputs) + conv(size, outputs, outputs)
    if down or inputs != outputs:
      d += conv(size // 2 if down else size, inputs, outputs, 1)
    raw = raw or conv(size, inputs, outputs) + conv(size // 2, inputs, outputs, 1)
  d += 2 * 16
  first = 2 * gan.dim_z // 3 * 16 * 16  # neither z nor labels need a gradient
  d_step = b * g + 2 * b * (3 * d - raw)  # a picture needs none either
  g_step = b * (3 * g - first + 2 * d)
  mesh = make_mesh(jax.devices()[:1])
  state, batch, _, phase = stage_cost.inputs(read, stage, mesh)
  txs = make_optimizer(read.g_adam), make_optimizer(read.d_adam)
  found = flops.of_step(gan, txs, t.d_steps, b, state, batch, phase)
  assert found.networks == pytest.approx(t.d_steps * d_step + g_step, rel=0.02)


def test_a_loop_is_counted_as_often_as_it_turns():
  def f(x):
    with jax.named_scope('spectral_norm'):
      y = x @ x
    return jax.lax.scan(lambda c, _: (c @ x, None), y, None, length=7)[0]

  jaxpr = jax.make_jaxpr(f)(jnp.ones((8, 8)))
  assert flops.count(jaxpr.jaxpr) == (7 * 2 * 8**3, 2 * 8**3)


def arguments(*more, config='configs/biggan_digits.py:tiny'):
  return cli.parser().parse_args([f'--config={ROOT / config}', *more])


@pytest.fixture(scope='module')
def local(tmp_path_factory):
  """The report of a tiny growing GAN on this machine's devices, two stages."""
  folder = tmp_path_factory.mktemp('plan')
  args = arguments(
    f'--cache={folder}',
    f'--json={folder / "rows.json"}',
    config='configs/progan_emoji.py:tiny',
  )
  return folder, args, cli.plan_stage(args)


def test_a_growing_gan_has_a_row_for_each_stage(local):
  folder, _, rows = local
  read = cli.configured(f'{ROOT}/configs/progan_emoji.py:tiny', {})
  assert [row['res'] for row in rows] == [s.res for s in read.stages]
  assert json.loads((folder / 'rows.json').read_text()) == rows
  g, d = jax.eval_shape(read.gan.init, jax.random.key(0))
  count = sum(np.prod(x.shape) for x in jax.tree.leaves((g['params'], d['params'])))
  for row in rows:
    assert row['params_bytes'] == 4 * count
    assert row['chips'] == len(jax.devices()) and row['fits']
    assert row['donated_bytes'] > 0.9 * row['state_bytes']
    assert 'all-reduce' in {c['kind'] for c in row['collectives']}
    assert row['run_s'] > 0 and row['mfu'] > 0


def test_a_program_is_compiled_once(local, monkeypatch, capsys):
  folder, args, rows = local
  before = sorted(folder.glob('*.gz'))
  assert len(before) == len(rows)
  monkeypatch.setattr(stage_cost, 'answer', lambda _: pytest.fail('compiled again'))
  again = cli.plan_stage(args)
  assert [r['hbm_bytes'] for r in again] == [r['hbm_bytes'] for r in rows]
  said = capsys.readouterr().out
  assert 'parameters' in said and 'MFU' in said and 'roofline' in said


class OutOfMemory:
  """A lowered program that the compiler refuses."""

  def __init__(self, words: str):
    self.words = words

  def as_text(self):
    return self.words

  def compile(self):
    raise jax.errors.JaxRuntimeError(f'RESOURCE_EXHAUSTED: {self.words}')


USED = (
  'XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 20.50G '
  'of 15.75G hbm. Exceeded hbm capacity by 4.75G.'
)
TEMPORARIES = (
  'Ran out of memory on HBM, the total memory required for HLO temporaries (16.50G) '
  'exceeds available HBM (15.75G).'
)


@pytest.mark.parametrize(
  'words, name, gib',
  [
    (USED, 'hbm_bytes', 20.5),
    (TEMPORARIES, 'temporary_bytes', 16.5),
    ('Too much.', 'temporary_bytes', 0),
  ],
)
def test_out_of_memory_is_a_row(words, name, gib, tmp_path):
  row = stage_cost.compiled(OutOfMemory(words), make_mesh(), tmp_path)
  assert row[name] == int(gib * 2**30) and words[:20] in row['out_of_memory']


def test_a_row_fits_if_the_compiler_and_the_chip_agree():
  chip = V5E._replace(hbm=16e9)
  parts = dict(state_bytes=1, batch_bytes=2, temporary_bytes=4)
  found = [
    stage_cost.memory(row | parts, chip)
    for row in ({'hbm_bytes': 10}, {'hbm_bytes': 17e9}, {'out_of_memory': 'Too much.'})
  ]
  assert [(row['hbm_bytes'], row['fits']) for row in found] == [
    (10, True),
    (17e9, False),
    (7, False),
  ]
  assert stage_cost.memory({'hbm_bytes': 10}, chip._replace(hbm=0))['fits']  # not known


def test_a_row_without_room_says_what_would_fit():
  row = dict(state_bytes=2**30, images_per_chip=32, accum=1, batch=64)
  row['hbm_bytes'] = int(20.5 * 2**30)
  chip = V5E._replace(hbm=16e9)
  # 20.5 - 1 GiB for 32 images: 22 at a time fit into what is left of 16 GB.
  assert stage_cost.advice(row, chip, remat=False) == (
    'would fit: about 22 images a chip at a time, or train.accum=2 for the same batch, '
    'or 3 such chips, or model.remat=True'
  )
  said = stage_cost.advice(row | dict(hbm_bytes=2**30), chip, remat=False)
  assert said == 'the compiler does not say how much is missing'
  row['state_bytes'] = int(17e9)
  assert 'the state alone' in stage_cost.advice(row, V5E, remat=None)


def test_times_follow_from_published_figures():
  row = dict(
    program_flops=197e9,
    program_bytes=819e6,
    collectives=[{'sent': 2e8}],
    cycles=3_000_000,
    networks_flops=98.5e9,
  )
  found = stage_cost.times(row, V5E, images=100)
  assert found == pytest.approx(
    dict(
      compute_s=1e-3,
      memory_s=1e-3,
      collectives_s=1e-3,
      step_s=2e-3,
      slowest_s=3e-3,
      mfu=0.25,
      slowest_mfu=1 / 6,
      images_per_s=50_000,
    )
  )
  here = V5E._replace(clock=0, ici=0)  # no cycles, no interconnect
  found = stage_cost.times(row, here, images=100)
  assert found['step_s'] == found['slowest_s'] == pytest.approx(2e-3)


def test_the_whole_run_is_the_sum_of_its_stages():
  read = parse_config(config('progan_emoji', 'tiny'))
  ends = [s.after + 1 for s in read.stages[1:]] + [read.train.images]
  starts = [0, *ends[:-1]]
  rows = [{'images_per_s': 10.0 * (i + 1)} for i in range(len(ends))]
  want = sum(
    (e - s) / r['images_per_s'] for s, e, r in zip(starts, ends, rows, strict=True)
  )
  assert stage_cost.whole_run(read, rows) == pytest.approx(want)
  assert np.isnan(stage_cost.whole_run(read, [{} for _ in rows]))


@pytest.mark.parametrize(
  'more, words',
  [
    (['--topology=v5e'], 'the shape of its slice'),
    (['--topology=h100:8'], 'v4, v5e, v5p, v6e'),
    (['--batch=12'], 'schedule.batch=12 does not divide by 8 devices'),
    (['--batch=x'], 'a whole number above 0'),
    (['--sweep=remat=1'], 'a key of the config'),
    (['--sweep=model.remt=1'], "did you mean 'remat'"),
    (['--res=5'], '--res=5 is no stage'),
  ],
)
def test_mistakes_are_one_sentence(more, words, tmp_path):
  with pytest.raises(UserError, match=words):
    cli.plan_stage(arguments(*more, f'--cache={tmp_path}'))


def test_configs_that_are_none():
  with pytest.raises(UserError, match='there is no such file'):
    cli.load('configs/biggan_imagenette.py')
  with pytest.raises(UserError, match='no variant'):
    cli.load(f'{ROOT}/configs/biggan_imagenet.py:64')
  with pytest.raises(UserError, match='get_config'):
    cli.load(f'{ROOT}/setup.py' if (ROOT / 'setup.py').exists() else __file__)


def test_without_libtpu_it_says_how_to_get_it(monkeypatch):
  def missing(*_, **__):
    raise RuntimeError('JAX TPU support not installed; cannot generate TPU topology.')

  monkeypatch.setattr(chips.topologies, 'get_topology_desc', missing)
  with pytest.raises(UserError, match=r'pip install .gan_jax\[plan\]'):
    chips.mesh_of('v5e:2x2')


def test_a_sweep_is_a_row_for_each_combination():
  args = arguments(
    '--topology=v5e:2x2,v4:2x2x1', '--batch=8,16', '--sweep=model.dtype=float32'
  )
  assert list(cli.combinations(args)) == [
    ({'batch': b, 'model.dtype': 'float32'}, t)
    for t in ('v5e:2x2', 'v4:2x2x1')
    for b in (8, 16)
  ]
  read = cli.configured(args.config, {'batch': 16, 'model.dtype': 'bfloat16'})
  assert read.stages[0].batch == 16 and read.gan.dtype == 'bfloat16'
  grown = parse_config(config('progan_emoji', 'tiny'))
  assert {s.batch for s in stage_cost.changed(grown, 24).stages} == {24}
  assert dataclasses.replace(grown.schedule, batch=(24,)).batch == (24,)
