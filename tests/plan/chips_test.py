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
  [
    ('v5e', 'the shape of its slice'),
    ('h101:8', 'v4, v5e, v5p, v6e'),
    ('gpu:8', 'h100, h200, b200'),
  ],
)
def test_unknown_topologies_are_refused(topology, words):
  with pytest.raises(UserError, match=words):
    chips.topology_mesh(topology)


@pytest.mark.parametrize(
  'topology, nearest',
  [
    ('v5e:3x3', 'v5e:2x4'),
    ('v5e:16x32', 'v5e:16x16'),  # libtpu compiles for it, but there is none
    ('v6e:5x13', 'v6e:8x8'),
    ('v4:4x4', 'v4:2x2x4'),
    ('v4:4x4x5', 'v4:4x4x4'),
    ('v5p:16x16x28', 'v5p:16x16x24'),
    ('v5e:2x2x2', 'v5e:2x4'),
  ],
)
def test_slices_that_do_not_exist_are_refused_with_the_nearest(topology, nearest):
  with pytest.raises(UserError, match=f'did you mean {nearest}'):
    chips.check_topology(topology)


@pytest.mark.parametrize(
  'topology',
  ['local', 'v5e:1x1', 'v5e:8x4', 'v4:2x2x1', 'v4:8x8x12', 'v5p:16x16x24', 'v6e:16x16'],
)
def test_slices_that_exist(topology):
  chips.check_topology(topology)


def test_the_local_devices_are_measured():
  mesh, chip = chips.topology_mesh('local')
  assert mesh.size == len(jax.devices())
  assert chip.peak > 0 and chip.bandwidth > 0 and chip.hbm > 0
  assert chip.clock == chip.ici == 0  # unknown
