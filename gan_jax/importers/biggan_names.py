"""Names and layouts of BigGAN-PyTorch's arrays, in both directions."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from gan_jax import UserError
from gan_jax.importers.name_mapping import (
  Arrays,
  NameTable,
  fill_variables,
  inverse,
  translate,
)
from gan_jax.models.base import Variables
from gan_jax.models.biggan import BigGAN
from gan_jax.storage.nested import flatten

# The module part of an official name, and the path of our layer.
BIGGAN_G: NameTable = (
  ('<linear>', '<linear>'),
  ('blocks.<i>.0.<conv>', 'block<i>/<conv>'),
  ('blocks.<i>.0.<bn>.<affine>', 'block<i>/<bn>/<affine>'),
  ('blocks.<i>.0.<bn>', 'block<i>/<bn>'),
  ('blocks.<i>.0.<bn>.bn', 'block<i>/<bn>'),
  ('blocks.<i>.1.<projection>', 'attention<i>/<projection>'),
  ('blocks.<i>.1', 'attention<i>'),
  ('output_layer.0', 'norm'),
  ('output_layer.0.bn', 'norm'),
  ('output_layer.2', 'rgb'),
)
BIGGAN_D: NameTable = (
  ('<linear>', '<linear>'),
  ('blocks.<i>.0.<conv>', 'block<i>/<conv>'),
  ('blocks.<i>.1.<projection>', 'attention<i>/<projection>'),
  ('blocks.<i>.1', 'attention<i>'),
)
BIGGAN_DEEP_D: NameTable = (
  ('<linear>', '<linear>'),
  ('input_conv', 'stem'),
  ('blocks.<i>.<j>.<conv>', 'block<i>_<j>/<conv>'),
  ('blocks.<i>.<last>.<projection>', 'attention<i>/<projection>'),
  ('blocks.<i>.<last>', 'attention<i>'),
)
# The last part of an official name -> our collection and leaf. The first one of a leaf
# is the one that is written.
_LEAVES = {
  'weight': ('params', 'kernel'),
  'bias': ('params', 'bias'),
  'gain': ('params', 'gain'),
  'gamma': ('params', 'gamma'),
  'stored_mean': ('batch_stats', 'stats/mean'),
  'stored_var': ('batch_stats', 'stats/var'),
  'running_mean': ('batch_stats', 'stats/mean'),  # of the cross-replica norm
  'running_var': ('batch_stats', 'stats/var'),
}
_COUNTERS = ('accumulation_counter', 'num_batches_tracked')  # have no place in ours


def convert_biggan(state: Arrays, table: NameTable, like: Variables) -> Variables:
  """Variables of one network from its state_dict.

  Args:
    state: arrays in PyTorch's layouts by official name.
    table: BIGGAN_G, BIGGAN_D or BIGGAN_DEEP_D.
    like: variables of the network, or their shapes.

  Raises:
    UserError: an array without a place in the network, a missing array or a wrong
      shape.
  """
  like_by_path = flatten(like, '/')
  is_generator = 'params/rgb/kernel' in like_by_path
  arrays: dict[str, np.ndarray] = {}
  singular: dict[str, dict[int, np.ndarray]] = {}  # spectral path -> arrays by number
  unknown = []
  for name, value in state.items():
    module, _, leaf = name.rpartition('.')
    if leaf in _COUNTERS:
      continue
    layer = translate(module, table)
    vector = re.fullmatch(r'(u|sv)(\d+)', leaf)
    first_of_g = is_generator and layer == 'linear'
    if layer is None or not (vector or leaf in _LEAVES):
      unknown.append(name)
    elif vector:
      kind, number = vector.groups()
      if first_of_g and kind == 'u':
        value = _rows_to_nhwc(value.reshape(-1))
      path = f'spectral/{layer}/{"u" if kind == "u" else "sigma"}'
      singular.setdefault(path, {})[int(number)] = value.reshape(-1)
    else:
      path = _path_of_leaf(layer, leaf, like_by_path)
      arrays[path] = to_flax_layout(path, _rows_to_nhwc(value) if first_of_g else value)
  arrays |= {path: _stack(path, rows) for path, rows in singular.items()}
  return fill_variables(arrays, unknown, like, like_by_path)


def _path_of_leaf(layer: str, leaf: str, like_by_path: Mapping[str, Any]) -> str:
  collection, ours = _LEAVES[leaf]
  path = f'{collection}/{layer}/{ours}'
  if ours == 'kernel' and path not in like_by_path:
    return f'{collection}/{layer}/embedding'
  return path


def _stack(path: str, rows: Mapping[int, np.ndarray]) -> np.ndarray:
  """Singular vectors [number, outputs] or singular values [number]."""
  if sorted(rows) != list(range(len(rows))):
    raise UserError(f'some of the singular vectors of {path} are missing.')
  stacked = np.stack([rows[i] for i in range(len(rows))])
  return stacked if path.endswith('/u') else stacked.reshape(-1)


def to_flax_layout(path: str, value: np.ndarray) -> np.ndarray:
  """Transposes kernels: [out, in, h, w] to [h, w, in, out], [out, in] to [in, out]."""
  if not path.endswith('kernel'):
    return value
  return value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T


def to_torch_layout(path: str, value: np.ndarray) -> np.ndarray:
  """The inverse of `to_flax_layout`; biases and gains lose their axes of size 1."""
  if path.endswith('kernel'):
    return value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
  return value if value.ndim < 2 or path.endswith('embedding') else value.reshape(-1)


def _rows_to_nhwc(value: np.ndarray) -> np.ndarray:
  """Reorders the outputs of G's first layer from (c, 4, 4) to (4, 4, c)."""
  shape = value.shape[1:]
  return value.reshape(-1, 16, *shape).swapaxes(0, 1).reshape(-1, *shape)


def _rows_to_nchw(value: np.ndarray) -> np.ndarray:
  """The inverse of `_rows_to_nhwc`."""
  shape = value.shape[1:]
  return value.reshape(16, -1, *shape).swapaxes(0, 1).reshape(-1, *shape)


def biggan_state(variables: Variables, gan: BigGAN) -> dict[str, np.ndarray]:
  """The state_dict of one network of BigGAN-PyTorch: inverse of `convert_biggan`.

  Args:
    variables: of G or of D.
    gan: a model that BigGAN-PyTorch can build.

  Returns:
    Arrays in the order in which the original registers them, in which its optimizers
    number the parameters.
  """
  is_generator = 'rgb' in variables['params']
  table = BIGGAN_G if is_generator else BIGGAN_DEEP_D if gan.depth else BIGGAN_D
  leaves: dict[str, str] = {}
  for official, (_, ours) in _LEAVES.items():
    leaves.setdefault(ours.rpartition('/')[2], official)
  leaves['embedding'] = leaves['kernel']
  state: dict[str, np.ndarray] = {}
  for path, x in flatten(variables, '/').items():
    collection, _, inner = path.partition('/')
    layer, _, leaf = inner.rpartition('/')
    layer = layer.removesuffix('/stats')
    module = translate(layer, inverse(table), last=gan.depth)
    assert module is not None, path  # all layers have names
    value = np.asarray(x)
    if collection == 'spectral':
      for i, row in enumerate(value):
        if leaf == 'sigma':
          state[f'{module}.sv{i}'] = row.reshape(1)
        else:
          ordered = _rows_to_nchw(row) if is_generator and layer == 'linear' else row
          state[f'{module}.u{i}'] = ordered[None]
      continue
    if collection == 'batch_stats' and gan.bn_ddof == 0:  # the original's mybn
      module += '.bn'
      state[f'{module}.accumulation_counter'] = np.zeros(1, np.float32)
    value = to_torch_layout(path, value)
    if is_generator and layer == 'linear':
      value = _rows_to_nchw(value)
    state[f'{module}.{leaves[leaf]}'] = value
  ordered = sorted(state, key=lambda name: _position(name, is_generator))
  return {name: np.array(state[name], order='C') for name in ordered}


# PyTorch lists the parameters of a module, its buffers, and then its submodules.
_OWN = (
  *('gain', 'weight', 'bias', 'gamma', 'u', 'sv', 'stored_mean', 'stored_var'),
  'accumulation_counter',
)
_SUBMODULES = (
  *('conv1', 'conv2', 'conv3', 'conv4', 'conv_sc', 'bn1', 'bn2', 'bn3', 'bn4', 'bn'),
  *('gain', 'bias', 'theta', 'phi', 'g', 'o'),
)


def _position(name: str, is_generator: bool) -> list[tuple[int, int, int]]:
  """Sorts official names as the original registers them."""
  outer = ('shared', 'linear', 'blocks', 'output_layer')
  if not is_generator:
    outer = ('input_conv', 'blocks', 'linear', 'embed')
  *modules, leaf = name.split('.')
  submodules = (*outer, *_SUBMODULES)
  ranks = [
    (1, int(part) if part.isdigit() else submodules.index(part), 0) for part in modules
  ]
  kind, number = re.fullmatch(r'(u|sv|.*?)(\d*)', leaf).groups()  # type: ignore[union-attr]
  return [*ranks, (0, _OWN.index(kind), int(number or 0))]
