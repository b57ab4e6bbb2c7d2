"""The platform follows the mesh that a function is traced for."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from gan_jax.ops.platform import platform
from gan_jax.runtime.mesh import AXIS, make_mesh
from tests.platforms import traced_for


def platform_in(mesh):
  """The platform that a function mapped over a mesh is traced for."""
  seen = []

  def f(x):
    seen.append(platform())
    return x

  mapped = jax.shard_map(f, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False)
  jax.make_jaxpr(mapped)(jnp.ones(1))
  return seen[-1]


def test_without_a_mesh_it_is_the_default_backend():
  assert platform() == 'cpu'


def test_a_mesh_of_devices_has_theirs():
  assert platform_in(make_mesh(jax.devices()[:1])) == 'cpu'


def test_a_mesh_without_devices_has_none():
  assert platform_in(jax.sharding.AbstractMesh((4,), (AXIS,))) == ''


@pytest.mark.parametrize('name', ['tpu', 'gpu'])
def test_a_mesh_of_abstract_devices_has_theirs(name):
  with traced_for(name):
    assert platform() == name
