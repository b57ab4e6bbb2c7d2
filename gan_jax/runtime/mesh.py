"""The device mesh: one axis, over which the batch is sharded."""

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh

AXIS = 'data'  # the mesh axis that carries the batch


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
  """A one-dimensional mesh of `devices`, all devices of all processes by default.

  Devices of one process are neighbours, in the order of their ids.
  """
  devices = jax.devices() if devices is None else devices
  order = sorted(devices, key=lambda d: (d.process_index, d.id))
  return Mesh(np.array(order), (AXIS,))
