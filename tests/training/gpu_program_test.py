"""What the training step compiled for two NVIDIA GPUs must stay like; none is needed.

Skipped without XLA's compiler for them: pip install '.[plan-gpu]'.
"""

import importlib.util
import re

import jax
import pytest

from gan_jax.config import parse_config
from gan_jax.plan import chips, hlo, stage_cost
from gan_jax.runtime import sharding
from gan_jax.training.compile_step import compile_train_step
from gan_jax.training.stages import step_config
from tests.training.programs import biggan_32px

pytestmark = pytest.mark.skipif(
  not any(map(importlib.util.find_spec, ('jax_cuda12_plugin', 'jax_cuda13_plugin'))),
  reason="needs pip install '.[plan-gpu]'",
)


@pytest.fixture(scope='module')
def compiled():
  """The step with sharded optimizer state and attention, and its text."""
  config = biggan_32px.get_config()
  config.schedule.batch, config.train.d_steps, config.train.images = 256, 1, 256
  config.model.g_attention = config.model.d_attention = (16,)
  config.model.g_ch = config.model.d_ch = 16
  before, sharding.MIN_SHARDED_SIZE = sharding.MIN_SHARDED_SIZE, 256
  try:
    parsed = parse_config(config.to_dict())
    mesh, _ = chips.topology_mesh('h100:2')
    step = compile_train_step(step_config(parsed, parsed.stages[0], 2), mesh)
    inputs = stage_cost.step_inputs(parsed, parsed.stages[0], mesh)
    program = step.lower(*inputs).compile()
  finally:
    sharding.MIN_SHARDED_SIZE = before
  return inputs.state, program, program.as_text()


def test_the_state_is_donated(compiled):
  state, program, text = compiled
  memory = program.memory_analysis()
  assert hlo.donated_arrays(hlo.parse(text)) >= len(jax.tree.leaves(state)) - 1
  assert memory.alias_size_in_bytes > 0.95 * memory.output_size_in_bytes


def test_no_map_is_copied_transposed_or_dilated(compiled):
  """Of 128 images a device and 8x8 pixels at least."""
  _, _, text = compiled
  of_map = r'%[\w.-]+ = bf16\[(?:128|256),(?:8|16|32),(?:8|16|32),\d+\]\S* '
  copies = re.findall(of_map + r'(?:copy|transpose|copy-start)\(%(\w+)', text)
  assert copies.count('broadcast') == len(copies) <= 2  # of zeros
  assert not re.findall(
    r' pad\(.*padding=\S*\d_\d+_[1-9]', text
  )  # zeros between pixels


def test_convolutions_are_cudnns_in_bfloat16_and_apply_the_relu(compiled):
  _, _, text = compiled
  calls = re.findall(r'custom-call\(.*custom_call_target="__cudnn\$conv\w+"', text)
  assert len(calls) > 50 and ' convolution(' not in text
  assert text.count('"activation_mode":"kRelu"') >= 4
  assert text.count('custom_call_target="__cudnn$convBackwardInput"') > 10


def test_attention_is_one_call_in_each_pass(compiled):
  _, _, text = compiled
  calls = lambda name: text.count(f'custom_call_target="__cudnn${name}"')
  # D and G in the D step and in the G step; XLA merges the calls of gradients.
  assert (calls('fmhaSoftmax'), calls('fmhaSoftmaxBackward')) == (4, 3)
  assert ' while(' not in text


def test_collectives(compiled):
  _, _, text = compiled
  count = {c['kind']: c['count'] for c in hlo.collectives(hlo.parse(text), 2)}
  # One update of D and one of G scatter their gradients at once. The others are batch
  # statistics, metrics and small gradients.
  assert count['reduce-scatter'] == 2
  assert count['all-gather'] <= 3 and count['all-reduce'] <= 26
