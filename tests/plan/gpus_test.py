"""GPUs that can be planned: topologies, targets of the compiler, rates."""

import re

import jax
import numpy as np
import pytest

from gan_jax import UserError
from gan_jax.plan import chips, gpus


@pytest.mark.parametrize(
  'topology, nodes',
  [
    ('h100:8', (1, 8)),
    ('h100:4x8', (4, 8)),
    ('h200:1', (1, 1)),
    ('b200:8', (1, 8)),
    ('a100-80:3x8', (3, 8)),
    ('a100-40:1', (1, 1)),
    ('l4:2x4', (2, 4)),
    ('rtx4090:2', (1, 2)),
    ('v100:8', (1, 8)),
  ],
)
def test_gpus_of_one_or_several_nodes(topology, nodes):
  assert gpus.check_gpus(topology) == nodes
  chips.check_topology(topology)


@pytest.mark.parametrize(
  'topology, nearest',
  [
    ('h100:6', 'h100:8'),
    ('h100:16', 'h100:2x8'),
    ('h100:12', 'h100:2x8'),
    ('h100:3x6', 'h100:3x8'),
    ('h100:4x3', 'h100:4x4'),
    ('h100:500x8', 'h100:128x8'),
    ('rtx4090:2x8', 'rtx4090:8'),
  ],
)
def test_nodes_that_do_not_exist_are_refused_with_the_nearest(topology, nearest):
  with pytest.raises(UserError, match=rf'did you mean {nearest}\?'):
    chips.topology_mesh(topology)


@pytest.mark.parametrize(
  'topology, words',
  [
    ('h100', 'such as h100:8, or nodes x GPUs, such as h100:4x8'),
    ('h100:0', 'such as h100:8'),
    ('h100:2x2x2', 'such as h100:8'),
    ('h100:8x', 'such as h100:8'),
    ('h10:8', r"did you mean 'h100'\?"),
    ('H100:8', r"did you mean 'h100'\?"),
    ('a100:8', r"did you mean 'a100-[48]0'\?"),
    ('rtx3090:1', r"did you mean 'rtx4090'\?"),
  ],
)
def test_unknown_cards_and_shapes_are_refused(topology, words):
  with pytest.raises(UserError, match=words):
    chips.topology_mesh(topology)


def test_without_the_plugin_the_error_says_how_to_install_it(monkeypatch):
  def missing(*_, **__):
    raise NotImplementedError('topology not implemented for cuda')

  monkeypatch.setattr(chips.topologies, 'get_topology_desc', missing)
  for topology, extra in (('h100:8', r'plan-gpu\]'), ('v100:8', r'plan-gpu-cuda12\]')):
    with pytest.raises(UserError, match=rf'pip install .gan_jax\[{extra}'):
      chips.topology_mesh(topology)


@pytest.mark.parametrize(
  'topology, words',
  [
    ('h100:8', r'does not work \(ptxas is missing\): pip install .gan_jax\[plan-gpu\]'),
    ('v100:8', "CUDA 13's compiler has no code for a Tesla V100.* another environment"),
  ],
)
def test_a_compiler_that_lacks_parts_is_reported_before_a_step(
  topology, words, monkeypatch
):
  class Topology:
    devices = np.array(jax.devices())

  def refuse(_):
    raise jax.errors.JaxRuntimeError('ptxas\n is missing')

  monkeypatch.setattr(chips.topologies, 'get_topology_desc', lambda *_, **__: Topology)
  monkeypatch.setattr(chips, 'compile_probe', refuse)
  with pytest.raises(UserError, match=words):
    chips.topology_mesh(topology)


@pytest.mark.parametrize('name', gpus.GPUS)
def test_the_target_of_the_compiler_has_the_figures_of_the_table(name):
  gpu = gpus.GPUS[name]
  text = gpus.target_config(gpu)
  fields = dict(re.findall(r'(\w+): ([^\s{}]+)', text))
  assert int(fields['core_count']) == gpu.cores
  assert int(fields['memory_bandwidth']) == gpu.bandwidth
  assert int(fields['device_memory_size']) * gpus.USABLE_MEMORY == gpu.hbm
  capability = re.search(r'major: (\d+) minor: (\d+)', text).groups()
  assert tuple(map(int, capability)) == gpu.capability
  assert ('ACCELERATED_FEATURES' in text) == (gpu.capability[0] >= 9)
  # Lanes, clock and a multiply-add a cycle give the published float32 peak.
  assert gpu.cores * gpu.lanes * 2 * gpu.ghz * 1e9 == pytest.approx(gpu.fp32, rel=0.02)


def test_rates_of_types_and_channels():
  gpu = gpus.GPUS['h100']
  assert gpu.peak_of('bf16', exact=False) == gpu.peak
  assert gpu.peak_of('f32', exact=False) == gpu.tf32
  assert gpu.peak_of('f32', exact=True) == gpu.fp32
  assert gpu.achieved('bf16', False, 256, 128) == gpu.peak * gpus.ACHIEVED_PEAK
  assert gpu.achieved('bf16', False, 16, 3) == pytest.approx(
    gpu.peak * gpus.ACHIEVED_PEAK * (16 * 3) / gpus.CHANNELS**2
  )
