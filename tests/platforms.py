"""Traces functions as for another platform than the CPU of the tests."""

import contextlib
from collections.abc import Callable

import jax
from jax.sharding import AbstractDevice, AbstractMesh

from gan_jax.runtime.mesh import AXIS


def traced_for(platform: str, kind: str = '') -> contextlib.AbstractContextManager:
  """A context in which operations choose the form of a platform such as 'tpu'.

  Args:
    kind: the model of the device.
  """
  device = AbstractDevice(device_kind=kind or platform, num_cores=1, platform=platform)
  mesh = AbstractMesh((1,), (AXIS,), abstract_device=device)
  return jax.sharding.use_abstract_mesh(mesh)


def lowered_for_cuda(f: Callable, *args: jax.ShapeDtypeStruct, kind: str = '') -> str:
  """The StableHLO of f for an NVIDIA GPU; no GPU or plugin is needed."""
  with traced_for('gpu', kind):
    return jax.jit(f).trace(*args).lower(lowering_platforms=('cuda',)).as_text()
