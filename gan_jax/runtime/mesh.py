"""The device mesh: one axis, over which batches and optimizer state are sharded."""

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh

AXIS = 'data'  # name of the mesh axis


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
  """A one-dimensional mesh of `devices`; by default all devices of all processes.

  Devices are sorted by process, then by id.
  """
  devices = jax.devices() if devices is None else devices
  order = sorted(devices, key=lambda d: (d.process_index, d.id))
  return Mesh(np.array(order), (AXIS,))
