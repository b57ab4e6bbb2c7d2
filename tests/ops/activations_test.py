"""ReLU and leaky ReLU of a GPU against the plain ones; what their gradient keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.ops.activations import leaky_relu, relu
from tests.gradients import penalty, scalar
from tests.platforms import traced_for

VALUES = [-2.0, -1e-3, -0.0, 0.0, 1e-3, 3.0]


@pytest.mark.parametrize(
  'ours, plain',
  [(relu, jax.nn.relu), (leaky_relu, lambda x: jnp.where(x >= 0, x, 0.2 * x))],
)
def test_a_gpu_has_the_same_values_and_gradients(ours, plain):
  with jax.enable_x64(True):
    x = jnp.asarray(VALUES)
    derivatives = (lambda f: jax.grad(scalar(f))), (lambda f: jax.grad(penalty(f)))
    for of in (lambda f: f, *derivatives):
      with traced_for('gpu'):
        found = of(ours)(x)
      np.testing.assert_array_equal(found, of(plain)(x))


@pytest.mark.parametrize('f', [relu, leaky_relu])
def test_the_gradient_of_a_gpu_keeps_the_result_only(f):
  with traced_for('gpu'):
    y, back = jax.vjp(f, jnp.asarray(VALUES))
    kept = jax.tree.leaves(back)
  assert len(kept) == 1
  np.testing.assert_array_equal(kept[0], y)


@pytest.mark.parametrize('platform', ['cpu', 'tpu', ''])
def test_other_devices_take_the_usual_functions(platform):
  with traced_for(platform):
    ours = [jax.make_jaxpr(jax.grad(f))(1.0) for f in (relu, leaky_relu)]
    plain = jax.nn.relu, lambda x: jnp.where(x >= 0, x, 0.2 * x)
    theirs = [jax.make_jaxpr(jax.grad(f))(1.0) for f in plain]
  assert list(map(str, ours)) == list(map(str, theirs))


def test_the_gradient_does_not_compare_the_result_by_size():
  """XLA rewrites max(x, 0) > 0 to x > 0, and then convolutions apply no ReLU."""
  with traced_for('gpu'):
    program = str(
      jax.make_jaxpr(jax.grad(lambda x: relu(x).sum()))(jnp.asarray(VALUES))
    )
  assert ' ne ' in program and ' gt ' not in program
