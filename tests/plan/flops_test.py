"""FLOPs of a step, against a count by hand."""

import importlib

import jax
import jax.numpy as jnp
import pytest

from gan_jax.config import parse_config
from gan_jax.plan import flops, stage_cost
from gan_jax.runtime.mesh import make_mesh
from gan_jax.training import stages


def test_flops_agree_with_a_count_by_hand():
  # A plain 16 px BigGAN; all its products are counted below.
  values = importlib.import_module('configs.biggan_digits').get_config('tiny').to_dict()
  values['model'] |= dict(g_widths=(2, 2, 1), d_widths=(1, 2, 2), g_attention=())
  values['model'] |= dict(d_attention=(), g_ch=8, d_ch=8, res=16)
  config = parse_config(values)
  gan, d_steps, (stage,) = config.gan, config.train.d_steps, config.stages
  b = stage.batch
  conv = lambda size, inputs, outputs, k=3: 2 * (size * k) ** 2 * inputs * outputs
  g = 2 * gan.dim_z // 3 * 16 * 16
  condition = gan.dim_z // 3 + (gan.shared_dim if gan.n_classes else 0)
  for size, inputs, outputs in ((8, 16, 16), (16, 16, 8)):
    g += conv(size, inputs, outputs) + conv(size, outputs, outputs)
    g += conv(size // 2, inputs, outputs, 1)
    g += 2 * 2 * condition * (inputs + outputs)  # gains and biases of two norms
  g += conv(16, 8, gan.channels)
  d = first_layers = 0
  for size, inputs, outputs in ((16, gan.channels, 8), (8, 8, 16), (4, 16, 16)):
    down = size > 4
    d += conv(size, inputs, outputs) + conv(size, outputs, outputs)
    if down or inputs != outputs:
      d += conv(size // 2 if down else size, inputs, outputs, 1)
    first_layers = first_layers or (
      conv(size, inputs, outputs) + conv(size // 2, inputs, outputs, 1)
    )
  d += 2 * 16
  first_dense = 2 * gan.dim_z // 3 * 16 * 16  # z and labels need no gradient
  d_step = b * g + 2 * b * (3 * d - first_layers)  # nor do images in the D step
  g_step = b * (3 * g - first_dense + 2 * d)
  mesh = make_mesh(jax.devices()[:1])
  state, batch, _, phase = stage_cost.step_inputs(config, stage, mesh)
  fixed = stages.step_config(config, stage, 1)
  counted = flops.step_flops(fixed, state, batch, phase)
  assert counted.networks == pytest.approx(d_steps * d_step + g_step, rel=0.02)


def test_flops_of_a_loop_are_multiplied():
  def f(x):
    with jax.named_scope('spectral_norm'):
      y = x @ x
    return jax.lax.scan(lambda c, _: (c @ x, None), y, None, length=7)[0]

  jaxpr = jax.make_jaxpr(f)(jnp.ones((8, 8)))
  assert flops.count_flops(jaxpr.jaxpr) == (7 * 2 * 8**3, 2 * 8**3)
