"""Traces functions as for another platform than the CPU of the tests."""

import contextlib

import jax
from jax.sharding import AbstractDevice, AbstractMesh

from gan_jax.runtime.mesh import AXIS


def traced_for(platform: str) -> contextlib.AbstractContextManager:
  """A context in which operations choose the form of a platform such as 'tpu'."""
  device = AbstractDevice(device_kind=platform, num_cores=1, platform=platform)
  mesh = AbstractMesh((1,), (AXIS,), abstract_device=device)
  return jax.sharding.use_abstract_mesh(mesh)
