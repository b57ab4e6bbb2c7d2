"""Topologies and the figures of their devices."""

import jax
import pytest

from gan_jax import UserError
from gan_jax.plan import chips


def test_without_libtpu_the_error_says_how_to_install_it(monkeypatch):
  def missing(*_, **__):
    raise RuntimeError('JAX TPU support not installed; cannot generate TPU topology.')

  monkeypatch.setattr(chips.topologies, 'get_topology_desc', missing)
  with pytest.raises(UserError, match=r'pip install .gan_jax\[plan\]'):
    chips.topology_mesh('v5e:2x2')


@pytest.mark.parametrize(
  'topology, words',
  [('v5e', 'the shape of its slice'), ('h100:8', 'v4, v5e, v5p, v6e')],
)
def test_unknown_topologies_are_refused(topology, words):
  with pytest.raises(UserError, match=words):
    chips.topology_mesh(topology)


def test_the_local_devices_are_measured():
  mesh, chip = chips.topology_mesh('local')
  assert mesh.size == len(jax.devices())
  assert chip.peak > 0 and chip.bandwidth > 0 and chip.hbm > 0
  assert chip.clock == chip.ici == 0  # unknown
