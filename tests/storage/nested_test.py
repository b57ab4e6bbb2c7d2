"""Nested mappings by path."""

from gan_jax.storage.nested import flatten


def test_leaves_are_named_by_their_path():
  tree = {'model': {'res': 8, 'g': {'ch': 2}}, 'batch': (1, 2), 'empty': {}}
  assert flatten(tree) == {'model.res': 8, 'model.g.ch': 2, 'batch': (1, 2)}
  assert flatten({'a': {'b': 1}}, '/') == {'a/b': 1}
