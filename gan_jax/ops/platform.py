"""Which platform a function is traced for; operations choose their form by it."""

import jax


def platform() -> str:
  """Platform of the mesh that is traced for: 'cpu', 'tpu', 'gpu', ...

  Without a mesh it is the platform of the default backend. A mesh without concrete
  devices gives ''; every operation then takes the form that defines it.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    return jax.default_backend()
  device = mesh.abstract_device
  return device.platform if device else ''


def device_kind() -> str:
  """Model of the devices that `platform` names, such as 'NVIDIA H200'; '' if none."""
  mesh = jax.sharding.get_abstract_mesh()
  device = jax.devices()[0] if mesh.empty else mesh.abstract_device
  return device.device_kind if device else ''
