"""What the parser reads from the text of a compiled program."""

from pathlib import Path

import pytest

from gan_jax.plan import hlo

# Shortened from the compiler's output for a slice of four chips.
TEXT = (Path(__file__).parent / 'compiled' / 'v5e_2x2.hlo').read_text()


def test_cycles_by_layer_and_kind():
  program = hlo.parse(TEXT)
  assert program.entry == 'main.1'
  assert hlo.total_cycles(program) == 5000 + 700 + 3 * 100
  assert hlo.cycles_by_layer(program) == [
    {'layer': layer, 'kind': kind, 'pass': direction, 'cycles': cycles}
    for layer, kind, direction, cycles in (
      ('Generator/block0/conv1', 'conv', 'backward', 5000),
      ('optimizer', 'copy', 'forward', 700),
      ('spectral_norm', 'dot', 'forward', 300),
    )
  ]


def test_collectives_count_what_a_ring_sends():
  all_reduce, reduce_scatter = hlo.collectives(hlo.parse(TEXT), devices=4)
  nbytes = 2 * 16 * 4 + 64 * 4
  assert all_reduce == {
    'kind': 'all-reduce',
    'count': 2,
    'bytes': nbytes,
    'sent': nbytes * 2 * 3 // 4,
  }
  # Two pairs: each chip keeps 100 of 200 bytes and sends the other half.
  assert reduce_scatter == {
    'kind': 'reduce-scatter',
    'count': 1,
    'bytes': 200,
    'sent': 100,
  }


def test_the_trip_count_of_a_loop_is_read_from_its_condition():
  text = (Path(__file__).parent / 'compiled' / 'loop.hlo').read_text()
  assert hlo.total_cycles(hlo.parse(text)) == 160
  assert hlo.total_cycles(hlo.parse(text.replace('direction=LT', 'direction=NE'))) == 10


def test_the_most_expensive_branch_of_a_conditional_counts():
  def branch(name, *cycles):
    ops = [
      f'  %{name}{i} = f32[4]{{0}} add(%x, %x), '
      f'backend_config={{"estimated_cycles":"{n}"}}'
      for i, n in enumerate(cycles)
    ]
    return f'\n%{name} (x: f32[4]) -> f32[4] {{\n' + '\n'.join(ops) + '\n}\n'

  text = (
    'HloModule m\n'
    + branch('few', 30)
    + branch('many', 10, 15)
    + (
      '\nENTRY %main (a: f32[4]) -> f32[4] {\n'
      '  ROOT %c = f32[4]{0} conditional(%p, %a, %a), '
      'branch_computations={%many, %few}\n}\n'
    )
  )
  assert hlo.total_cycles(hlo.parse(text)) == 30
  without = hlo.parse(text.replace('estimated_cycles', 'none'))
  names = [e.op.name for e in hlo.executed_ops(without)]
  assert names == ['c', 'many0', 'many1']


def test_rows_that_no_estimate_counts():
  """Of gathers and scatters, in loops too, but not those with an estimate."""
  text = (Path(__file__).parent / 'compiled' / 'gathers.hlo').read_text()
  # Five turns of 7 x 3 rows, and 11 rows that are added.
  assert hlo.rows_without_estimate(hlo.parse(text)) == 5 * 7 * 3 + 11
  of_two = text.replace('scatter(%q, %k, %u)', 'scatter(%q, %q, %k, %u, %u)')
  assert hlo.rows_without_estimate(hlo.parse(of_two)) == 5 * 7 * 3 + 11


def test_an_asynchronous_collective_counts_once():
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
  (total,) = hlo.collectives(hlo.parse(text), devices=2)
  assert total == {'kind': 'all-gather', 'count': 2, 'bytes': 512, 'sent': 256}


def test_tiles_are_padded():
  shape = 'bf16[8,16,16,96]{3,0,2,1:T(8,128)(2,1)}'
  nbytes = 8 * 16 * 16 * 2  # per channel
  assert list(hlo.array_sizes(shape)) == [('bf16', nbytes * 96, nbytes * 128)]
  assert list(hlo.array_sizes('(pred[3]{0:T(256)}, f32[])')) == [
    ('pred', 3, 256),
    ('f32', 4, 4),
  ]
  images, product = 8 * 16 * 16 * 2, 256 * 4 * 3  # per channel; three iterations
  assert hlo.written_nbytes(hlo.parse(TEXT)) == (
    2 * images * 96 + product * 32,
    2 * images * 128 + product * 128,
  )


def test_donated_arrays_and_types_of_products():
  program = hlo.parse(TEXT)
  assert hlo.donated_arrays(program) == 2
  assert hlo.product_types(program) == {'conv bf16': 1, 'dot f32': 1}


@pytest.mark.parametrize(
  'op_name, layer',
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
def test_layers_are_read_from_scopes(op_name, layer):
  assert hlo.layer_name(op_name) == layer
