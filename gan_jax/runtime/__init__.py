"""Devices and processes: XLA flags, the mesh, sharding, joining a job."""
