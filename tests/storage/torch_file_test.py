"""Files of torch.save, written without PyTorch. PyTorch 2.13 reads them as they are."""

import collections
import pickle
import zipfile

import numpy as np
import pytest

from gan_jax.storage import weights
from gan_jax.storage.torch_file import write_torch


def test_trees_are_read_as_they_were_written(tmp_path):
  rng = np.random.default_rng(0)
  tree = {
    'state': {0: {'step': np.array(3, np.float32), 'x': rng.normal(size=(2, 3, 1))}},
    'group': [{'lr': 1e-4, 'betas': (0.0, 0.999), 'foreach': None, 'amsgrad': False}],
    'number': 2**40,
    'text': 'Größe',
    'transposed': rng.normal(size=(4, 3)).astype(np.float32).T,
    'integers': np.arange(6).reshape(1, 6),
  }
  write_torch(tmp_path / 'a.pth', tree)
  file = weights.read_weights(tmp_path / 'a.pth')
  assert file.ordered
  got = file.tree
  assert list(got) == list(tree)
  for path in (('transposed',), ('integers',), ('state', 0, 'x'), ('state', 0, 'step')):
    ours, theirs = tree, got
    for key in path:
      ours, theirs = ours[key], theirs[key]
    np.testing.assert_array_equal(theirs, ours)
    assert theirs.dtype == ours.dtype and theirs.shape == ours.shape
  assert got['group'] == tree['group']
  assert (got['number'], got['text']) == (2**40, 'Größe')


def test_the_pickle_calls_only_what_pytorch_allows(tmp_path):
  """A state_dict is an OrderedDict, each tensor the arguments of PyTorch's call."""
  calls = []

  class Reader(pickle.Unpickler):
    def find_class(self, module, name):
      if (module, name) == ('collections', 'OrderedDict'):
        return collections.OrderedDict
      if name == '_rebuild_tensor_v2':
        return lambda *args: calls.append(args) or args
      return f'{module}.{name}'

    def persistent_load(self, identity):
      return identity

  write_torch(tmp_path / 'a.pth', {'w': np.zeros((2, 3, 4), np.float32)})
  with zipfile.ZipFile(tmp_path / 'a.pth') as archive:
    state = Reader(archive.open('archive/data.pkl')).load()
    assert len(archive.read('archive/data/0')) == 96
  assert type(state) is collections.OrderedDict
  storage = ('storage', 'torch.FloatStorage', '0', 'cpu', 24)
  assert calls == [
    (storage, 0, (2, 3, 4), (12, 4, 1), False, collections.OrderedDict())
  ]


def test_what_has_no_place_is_an_error(tmp_path):
  for value in ({1, 2}, np.zeros(2, np.complex64), 2**70):
    with pytest.raises(TypeError, match='cannot be written for PyTorch'):
      write_torch(tmp_path / 'a.pth', {'x': value})
  assert not list(tmp_path.iterdir())
