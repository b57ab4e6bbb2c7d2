"""Nested mappings by path."""

import numpy as np

from gan_jax.storage.nested import fingerprint, flatten


def test_leaves_are_named_by_their_path():
  tree = {'model': {'res': 8, 'g': {'ch': 2}}, 'batch': (1, 2), 'empty': {}}
  assert flatten(tree) == {'model.res': 8, 'model.g.ch': 2, 'batch': (1, 2)}
  assert flatten({'a': {'b': 1}}, '/') == {'a/b': 1}


def test_fingerprint_depends_on_names_shapes_and_values_only():
  a = {'x': np.arange(6, dtype=np.float32), 'y': np.zeros(2)}
  assert fingerprint(a) == fingerprint(dict(reversed(a.items())))
  assert fingerprint(a) != fingerprint({**a, 'y': np.ones(2)})
  assert fingerprint(a) != fingerprint({**a, 'x': a['x'].reshape(2, 3)})
