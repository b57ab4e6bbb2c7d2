"""Reads files of --reference, runs functions under the mesh axis, reports checks."""

import json

import jax
import numpy as np
from jax.sharding import PartitionSpec as P

from gan_jax.runtime.mesh import make_mesh

Checks = dict[str, tuple[float, float]]  # name -> error, tolerance


def load(path):
  with np.load(path) as z:
    return {k: z[k] for k in z.files}


def under(z, prefix):
  """The arrays whose name begins with the prefix, without it."""
  return {k[len(prefix) :]: v for k, v in z.items() if k.startswith(prefix)}


def nhwc(x):
  """[..., c, h, w] -> [..., h, w, c]."""
  return np.moveaxis(x, -3, -1)


def error(ours, theirs):
  """Largest absolute difference; 0 of empty arrays."""
  return float(np.max(np.abs(np.asarray(ours, np.float64) - theirs), initial=0))


def kind_of(path, kinds):
  """The kind of a file by the function that it records; '' if it is none of `kinds`.

  Args:
    kinds: part of the function's name -> kind.
  """
  with np.load(path) as z:
    if 'meta_json' not in z.files:
      return ''
    function = json.loads(str(z['meta_json'])).get('function', '')
  return next((kind for name, kind in kinds.items() if name in str(function)), '')


def parametrize_files(metafunc, kinds):
  """Gives a test with `fixture_path` each file of --reference of one of `kinds`."""
  if 'fixture_path' not in metafunc.fixturenames:
    return
  root = metafunc.config.getoption('--reference')
  paths = [p for p in sorted(root.rglob('*.npz')) if kind_of(p, kinds)]
  metafunc.parametrize('fixture_path', paths, ids=[p.stem for p in paths])


def cast(tree, dtype):
  return jax.tree.map(lambda x: np.asarray(x, dtype), tree)


def on_one_device(f):
  """f compiled under the mesh axis; the `res` of a Phase argument is static."""
  mesh = make_mesh(jax.devices()[:1])
  mapped = jax.shard_map(f, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False)
  return jax.jit(mapped)


def report(name, checks: Checks, record_parity) -> None:
  """Shows the check that is closest to its tolerance; fails if one is beyond it."""
  share = lambda check: check[1][0] / max(check[1][1], 1e-300)
  kind, (worst, tolerance) = max(checks.items(), key=share)
  record_parity(
    f'{name}: worst {worst:.1e} of {tolerance:.1e} ({kind}; {len(checks)} checks)'
  )
  bad = {k: c for k, c in checks.items() if not c[0] <= c[1]}
  assert not bad, f'{name}: beyond tolerance (error, tolerance): {bad}'
