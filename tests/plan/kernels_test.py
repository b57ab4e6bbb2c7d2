"""Costs of GPU kernels, read from the text of a compiled program."""

from pathlib import Path

import pytest

from gan_jax.plan import gpus, hlo, kernels

# Shortened from the compiler's output for four H100.
PROGRAM = hlo.parse((Path(__file__).parent / 'compiled' / 'h100_2x2.hlo').read_text())
H100 = gpus.GPUS['h100']
MAPS_64, MAPS_96, KERNEL = 8 * 32 * 32 * 64, 8 * 32 * 32 * 96, 96 * 9 * 64
CONVOLUTION = 2 * MAPS_96 * 9 * 64  # FLOPs, which its gradients have too


def cost_of(name):
  ops = PROGRAM.computations[PROGRAM.entry]
  shapes = {op.name: op.shape for op in ops}
  op = next(op for op in ops if op.name == name)
  return kernels.kernel_cost(PROGRAM, op, shapes, H100)


@pytest.mark.parametrize(
  'name, flops, nbytes',
  [
    ('cudnn-conv.1', CONVOLUTION, 2 * (MAPS_64 + KERNEL + MAPS_96)),
    ('cudnn-conv-bw-input.1', CONVOLUTION, 2 * (MAPS_96 + KERNEL + MAPS_64)),
    ('cudnn-conv-bw-filter.1', CONVOLUTION, 2 * (MAPS_64 + MAPS_96 + KERNEL)),
    ('cublas-lt-matmul.1', 2 * 128 * 64 * 32, 4 * (128 * 64 + 64 * 32 + 128 * 32)),
    ('fmha', 2 * 2 * (2 * 3 * 64 * 64) * 64, 2 * (3 * MAPS_64 + 2 * 64 * 3 * 32)),
    ('gemm_fusion_dot', 2 * 256 * 512 * 128, 2 * (256 * 128 + 128 * 512 + 256 * 512)),
    ('slice_fusion', 0, 2 * 2 * 32 * 32 * 64 + 4),  # one image, not the eight
    ('update_fusion', 0, 4 * (10 + 10 + 10) + 4),  # ten elements, not the hundred
    ('transpose_fusion', 0, 2 * 2 * 512 * 256),
  ],
)
def test_flops_and_bytes_of_a_kernel(name, flops, nbytes):
  cost, seconds = cost_of(name)
  assert (cost.flops, cost.nbytes, cost.kernels) == (flops, nbytes, 1)
  assert seconds > gpus.LAUNCH_S


def test_a_kernel_takes_the_longer_of_computing_and_moving_and_its_launch():
  cost, seconds = cost_of('cudnn-conv.1')
  # 96 output channels are padded to 128
  rate = H100.peak * gpus.ACHIEVED_PEAK * 96 / 128
  assert cost.flops / rate > cost.nbytes / H100.bandwidth
  assert seconds == pytest.approx(cost.flops / rate + gpus.LAUNCH_S)
  assert cost.compute_s == pytest.approx(CONVOLUTION / H100.peak)
  cost, seconds = cost_of('transpose_fusion')
  move = cost.nbytes / (H100.bandwidth * gpus.ACHIEVED_BANDWIDTH)
  assert seconds == pytest.approx(move + gpus.LAUNCH_S)
  # The precision 'highest' of float32 does without tensor cores.
  assert cost_of('cublas-lt-matmul.1')[0].compute_s == pytest.approx(
    2 * 128 * 64 * 32 / H100.fp32
  )


def test_the_cost_of_a_program_multiplies_loops_and_leaves_out_collectives():
  timed, total = kernels.estimate(PROGRAM, H100)
  names = [op.name for op in PROGRAM.computations[PROGRAM.entry] if op.shape]
  alone = [cost_of(name) for name in names]
  copy_s = 2 * 256 * 4 / (H100.bandwidth * gpus.ACHIEVED_BANDWIDTH) + gpus.LAUNCH_S
  assert total.kernels == 9 + 5
  assert total.flops == sum(cost.flops for cost, _ in alone)
  assert total.nbytes == sum(cost.nbytes for cost, _ in alone) + 5 * 2 * 256 * 4
  seconds = sum(seconds for _, seconds in alone) + 5 * copy_s
  assert hlo.total_cycles(timed) == pytest.approx(seconds * 1e9, abs=10)
  layers = {(g['layer'], g['kind'], g['pass']) for g in hlo.cycles_by_layer(timed)}
  assert layers >= {
    ('Generator/block0/conv1', 'conv', 'backward'),
    ('Generator/attention', 'dot', 'forward'),
    ('spectral_norm', 'dot', 'forward'),
    ('optimizer', 'copy', 'forward'),
  }


def test_copies_and_transposes_types_and_layouts():
  timed, _ = kernels.estimate(PROGRAM, H100)
  assert kernels.copied(timed) == {
    'copy': {'count': 5, 'bytes': 5 * 256 * 4},
    'transpose': {'count': 1, 'bytes': 2 * 512 * 256},
  }
  assert kernels.convolution_layouts(PROGRAM) == {'b01f': 3}
  assert hlo.product_types(PROGRAM) == {'conv bf16': 3, 'dot f32': 1, 'dot bf16': 2}
  assert hlo.donated_arrays(PROGRAM) == 2


def test_collectives_send_within_and_between_nodes():
  gather, reduce, scatter = hlo.collectives(PROGRAM, devices=4, per_node=2)
  # All four: a ring leaves a node once for each of its two GPUs.
  sent = 2 * 256 * 4 * 3 // 4
  assert reduce == {
    'kind': 'all-reduce',
    'count': 1,
    'bytes': 256 * 4,
    'sent': sent,
    'network': sent // 2,
    'between_nodes': 1,
  }
  # Groups 0, 1 and 2, 3 are nodes; 0, 2 and 1, 3 are not.
  assert (gather['bytes'], gather['network'], gather['between_nodes']) == (512, 0, 0)
  assert (scatter['count'], scatter['between_nodes']) == (2, 2)
  assert (scatter['bytes'], scatter['sent'], scatter['network']) == (2048, 1024, 1024)
  one_node = hlo.collectives(PROGRAM, devices=4, per_node=4)
  assert [c['network'] for c in one_node] == [0, 0, 0]
  plain = hlo.collectives(PROGRAM, devices=4)
  assert [sorted(c) for c in plain] == [['bytes', 'count', 'kind', 'sent']] * 3


def test_seconds_of_collectives():
  within = dict(count=2, sent=450e6, network=0, between_nodes=0)
  assert H100.collectives_s([within]) == pytest.approx(
    1e-3 / gpus.ACHIEVED_LINK + 2 * gpus.COLLECTIVE_S
  )
  between = dict(count=3, sent=500e6, network=50e6, between_nodes=1)
  assert H100.collectives_s([between]) == pytest.approx(
    1e-3 / gpus.ACHIEVED_LINK + 2 * gpus.COLLECTIVE_S + gpus.NETWORK_COLLECTIVE_S
  )
