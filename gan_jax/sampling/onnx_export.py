"""Export of a generator as an ONNX model, for runtimes without JAX."""

import dataclasses
import importlib.util
import json
import logging
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from gan_jax import UserError
from gan_jax.models.base import GAN, Variables
from gan_jax.sampling.export import model_section
from gan_jax.sampling.output import cannot_write, check_writable
from gan_jax.storage.files import atomic_path

SUFFIX = '.onnx'


def check_onnx(path: Path) -> None:
  """Checks what `export_onnx` needs, before anything is computed.

  Raises:
    UserError: a package is not installed, or the file cannot be written.
  """
  if not all(map(importlib.util.find_spec, ('jax2onnx', 'onnx'))):
    raise UserError(
      "exporting to ONNX needs packages: pip install 'gan_jax[onnx]', and then "
      'pip install --no-deps jax2onnx.'
    )
  try:
    check_writable(path)
  except OSError as error:
    raise cannot_write(path, error) from error


def export_onnx(gan: GAN, g: Variables, path: Path | str, **fixed: Any) -> Path:
  """Writes an ONNX model with the weights inside, atomically.

  Its inputs are z float32 [b, dim_z]; classes float32 [b, n_classes], weights over the
  classes, of a model with classes; and psi, a float32 scalar. Its output `images` is
  float32 [b, h, w, channels], about [-1, 1] and not clipped. The noise of a
  StyleGAN is the one stored with the weights. All is computed in float32. The metadata
  `gan_jax` is the model section of the config as JSON.

  Args:
    g: variables of the generator, usually the EMA weights, with the batch statistics
      to sample with.
    fixed: keyword arguments of `gan.generate`: `res` and `alpha` of a growing GAN.

  Raises:
    UserError: a package is not installed, or the file cannot be written.
  """
  path = Path(path)
  check_onnx(path)
  import onnx

  model = onnx_model(gan, g, **fixed)
  onnx.helper.set_model_props(model, {'gan_jax': json.dumps(model_section(gan))})
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as part:
      part.write_bytes(model.SerializeToString())
  except OSError as error:
    raise cannot_write(path, error) from error
  return path


def onnx_model(gan: GAN, g: Variables, **fixed: Any) -> Any:
  """The ModelProto of `export_onnx`, without metadata."""
  for name in ('jax2onnx', 'onnx_ir'):  # report each pattern that they do not use
    logging.getLogger(name).setLevel(logging.ERROR)
  from jax2onnx import to_onnx

  constants = jax.tree.map(jnp.asarray, jax.device_get(g))
  narrow: Any = gan  # a dataclass with a dtype, as every family
  wide = {'dtype': 'float32', 'bfloat16_from': 0}
  ours = {name: value for name, value in wide.items() if hasattr(gan, name)}
  float32: GAN = dataclasses.replace(narrow, **ours)

  def generate(z: Array, *rest: Array) -> Array:
    labels = rest[0] if gan.n_classes else jnp.zeros(z.shape[0], jnp.int32)
    return float32.generate(constants, z, labels, rest[-1], **fixed)

  shapes: dict[str, tuple[Any, ...]] = {'z': ('b', gan.dim_z)}
  if gan.n_classes:
    shapes['classes'] = ('b', gan.n_classes)
  shapes['psi'] = ()
  # Without concrete devices every operation takes the form that defines it.
  with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((1,), ('export',))):
    return to_onnx(
      generate,
      list(shapes.values()),
      model_name='generator',
      input_names=list(shapes),
      output_names=['images'],
    )
