"""The projection against projector.py of StyleGAN2-ADA, read from --reference.

Tolerances are those beside the fixtures.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np

from gan_jax.project import noise_maps, optimization
from gan_jax.project.schedules import learning_rates, noise_scales
from gan_jax.project.spaces import statistics
from tests.parity.reference_files import (
  error,
  load,
  nhwc,
  parametrize_files,
  report,
  under,
)


def pytest_generate_tests(metafunc):
  parametrize_files(metafunc, {'projector.project': 'projector'})


def relative(ours, theirs):
  return error(ours, theirs) / np.abs(theirs).max()


def as_map(x):
  """[h, w] -> [1, h, w, 1]."""
  return jnp.asarray(x, jnp.float64)[None, :, :, None]


def check_schedules(z):
  checks = {}
  for key, lr in z.items():
    if key.startswith('schedule/') and key.endswith('/lr'):
      n = len(lr)
      scales = z[f'schedule/{n}/w_noise_scale_over_w_std']
      checks[f'lr {n}'] = error(learning_rates(n), lr), 1e-12
      checks[f'noise {n}'] = error(noise_scales(n), scales), 1e-8
  return checks


def check_noise_maps(z):
  checks = {}
  for size, x in under(z, 'noise_reg/map/').items():
    penalty = lambda x: noise_maps.penalty([x]).sum()
    value, gradient = jax.jit(jax.value_and_grad(penalty))(as_map(x))
    expected = z[f'noise_reg/value/{size}']
    checks[f'penalty {size}'] = abs(float(value) / expected - 1), 1e-6
    expected = as_map(z[f'noise_reg/grad/{size}'])
    checks[f'gradient {size}'] = relative(gradient, expected), 1e-6
  return checks


class Toy:
  """The network and the features that the fixture describes."""

  def __init__(self, z):
    self.z, self.res = z, z['toy/target'].shape[-1]

  def w(self, latents):
    return np.tanh(
      latents.astype(np.float32) @ self.z['toy/mapping_M'] + self.z['toy/mapping_b']
    )

  def render(self, variables):
    ws, total = variables['latent'], 0.0
    for layer in self.z['toy/synthesis_T']:
      total += (ws[:, 0] @ layer).reshape(-1, 3, self.res, self.res)
    total = nhwc_of(total)
    for x, gain in zip(variables['noise'], self.z['toy/noise_gain'], strict=False):
      factor = self.res // x.shape[1]
      if factor:
        x = x.repeat(factor, 1).repeat(factor, 2)
      else:
        n, k = x.shape[1] // self.res, self.res
        x = x.reshape(1, k, n, k, n, 1).mean((2, 4))
      total += x * gain.reshape(1, 1, 1, -1)
    return jnp.tanh(total)

  @property
  def comparison(self):
    def features(images):
      rows = jnp.moveaxis((images + 1) * 127.5, -1, 1)
      return rows.reshape(len(rows), -1) @ self.z['toy/feature_F']

    distance = lambda a, b: jnp.square(a - b).sum(-1)
    return optimization.Comparison('toy', features, distance)


def nhwc_of(x):
  return jnp.moveaxis(x, 1, -1)


def check_toy(z):
  settings, toy = json.loads(str(z['meta_json']))['toy'], Toy(z)
  latents = np.random.RandomState(123).randn(10_000, settings['z_dim'])
  w_avg, w_std = statistics(toy.w(latents))
  checks = {
    'w_avg': (error(w_avg, z['toy/w_avg'][0, 0]), 1e-5),
    'w_std': (abs(w_std / z['toy/w_std'] - 1), 1e-6),
  }
  target = nhwc(z['toy/target'])[None] / 127.5 - 1
  targets = toy.comparison.features(jnp.asarray(target))
  n = len(z['toy/noise_gain'])
  count = len(under(z, 'toy/noise_init/'))
  noise = tuple(as_map(z[f'toy/noise_init/{i}']) for i in range(min(n, count)))
  state = optimization.start({'latent': jnp.float64(w_avg)[None, None], 'noise': noise})
  steps, weight = settings['num_steps'], settings['regularize_noise_weight']
  rates, scales = learning_rates(steps), noise_scales(steps)
  checks['lr'] = error(rates, z['toy/lr']), 1e-12
  checks['w noise'] = error(scales * w_std, z['toy/w_noise_scale']), 1e-6

  @jax.jit
  def step(state, rate, scale, eps):
    values = optimization.Schedule(rate, scale, eps)
    return optimization.update(
      toy.render, toy.comparison, state, targets, values, weight
    )

  found = []
  for i in range(steps):
    scale = np.array([scales[i] * w_std])
    state, _ = step(state, rates[i], scale, z['toy/eps'][i][None, None])
    if i == 0:  # Adam's first moment is a tenth of the gradient
      checks |= gradient_checks(z, state.adam.mu)
    found.append(state.variables['latent'][0, 0])
  checks['w'] = error(np.stack(found), z['toy/w_out']), 1e-4
  for i, x in enumerate(state.variables['noise']):
    checks[f'noise {i}'] = error(x, as_map(z[f'toy/noise_final/{i}'])), 1e-4
  return checks


def gradient_checks(z, mu):
  expected = z['toy/grad_w_step0']
  checks = {'gradient w': (relative(10 * mu['latent'], expected), 2e-5)}
  for i, x in enumerate(mu['noise']):
    expected = as_map(z[f'toy/grad_noise_step0/{i}'])
    checks[f'gradient noise {i}'] = relative(10 * x, expected), 2e-5
  return checks


def test_projector(fixture_path, record_parity):
  z = load(fixture_path)
  with jax.enable_x64(True):
    checks = check_schedules(z) | check_noise_maps(z) | check_toy(z)
  report(fixture_path.name, checks, record_parity)
