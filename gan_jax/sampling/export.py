"""Export of a generator to files that need no gan_jax.

`export_generator` writes two files. `gen.stablehlo` is an artifact of jax.export for
CPU, TPU and CUDA with the weights inside; it can be written on any of these devices.
`gen.safetensors` has the weights by path ('params/block0/conv1/kernel') and, in the
metadata of its header, the model section of the config as JSON under 'gan_jax'.
"""

import dataclasses
import importlib.util
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from gan_jax import UserError
from gan_jax.models.base import GAN, SamplingDefaults, Variables, to_uint8
from gan_jax.sampling.output import cannot_write, check_writable
from gan_jax.storage.files import atomic_path
from gan_jax.storage.nested import flatten

PLATFORMS = ('cpu', 'tpu', 'cuda')
SUFFIX = '.stablehlo'


def check_export(path: Path) -> None:
  """Checks what `export_generator` needs, before anything is computed.

  Raises:
    UserError: `path` does not end in .stablehlo, a package is not installed, or a file
      cannot be written.
  """
  if path.suffix.lower() != SUFFIX:
    raise UserError(
      f'{path}: the name of an exported generator ends in {SUFFIX} or .onnx.'
    )
  if not all(map(importlib.util.find_spec, ('flatbuffers', 'safetensors'))):
    raise UserError("exporting needs a package: pip install 'gan_jax[export]'.")
  for file in (path, path.with_suffix('.safetensors')):
    try:
      check_writable(file)
    except OSError as error:
      raise cannot_write(file, error) from error


def read_exported(path: Path, otherwise: str) -> tuple[bytes, jax.export.Exported]:
  """The content of a file that jax.export wrote, and its function. Compiles nothing.

  Args:
    otherwise: the sentence about a file that holds something else.

  Raises:
    UserError: the file cannot be read or holds something else, or a package is not
      installed.
  """
  try:
    content = path.read_bytes()
    return content, jax.export.deserialize(bytearray(content))
  except ImportError as error:
    raise UserError("this needs a package: pip install 'gan_jax[export]'.") from error
  except OSError as error:
    raise UserError(f'{path} cannot be read: {error.strerror}.') from error
  except Exception as error:  # a foreign file can make the parser raise anything
    raise UserError(otherwise) from error


def export_generator(
  gan: GAN,
  g: Variables,
  path: Path | str,
  platforms: Sequence[str] = PLATFORMS,
  **fixed: Any,
) -> tuple[Path, Path]:
  """Writes `path` (.stablehlo) and the .safetensors of the same name, each atomically.

  The exported function takes z float32 [b, dim_z], class weights float32
  [b, n_classes] ([b, 0] for a model without classes) and psi, a float32 scalar. It
  returns uint8 [b, h, w, channels]: the images of the sampler, where a few values
  in a thousand may be rounded to the next level, since the compiler orders some
  products by the batch size, which the file leaves open. The noise of a StyleGAN is
  the one stored with the weights. The name of the function states the family's
  `SamplingDefaults`: 'generate psi=0.7 ...'.

  Args:
    g: variables of the generator, usually the EMA weights, with the batch statistics
      to sample with.
    platforms: the platforms that the artifact can be loaded on.
    fixed: keyword arguments of `gan.generate`: `res` and `alpha` of a growing GAN.

  Returns:
    The paths of both files.

  Raises:
    UserError: `path` does not end in .stablehlo, a package is not installed, or the
      files cannot be written.
  """
  path = Path(path)
  check_export(path)
  exported = export_program(gan, g, platforms, **fixed)
  weights = path.with_suffix('.safetensors')
  serialized = exported.serialize()
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as part:
      part.write_bytes(serialized)
    write_safetensors(weights, g, {'gan_jax': json.dumps(model_section(gan))})
  except OSError as error:
    raise cannot_write(path, error) from error
  return path, weights


def export_program(
  gan: GAN, g: Variables, platforms: Sequence[str] = PLATFORMS, **fixed: Any
) -> jax.export.Exported:
  """The exported function of `export_generator`, which can be called or serialized."""
  constants = jax.tree.map(np.asarray, jax.device_get(g))

  def generate(z: Array, classes: Array, psi: ArrayLike) -> Array:
    # The barrier hides from the compiler that the weights are constants. It would fold
    # them for minutes, and the last bits would differ more from those of the sampler.
    variables = jax.lax.optimization_barrier(constants)
    labels = classes if gan.n_classes else jnp.zeros(z.shape[0], jnp.int32)
    images = gan.generate(variables, z, labels, psi, **fixed)
    return to_uint8(images)

  (b,) = jax.export.symbolic_shape('b')
  shapes = ((b, gan.dim_z), (b, gan.n_classes), ())
  inputs = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
  exported = jax.export.export(jax.jit(generate), platforms=list(platforms))(*inputs)
  defaults = gan.sampling_defaults._asdict().items()
  name = ' '.join(['generate', *(f'{key}={value}' for key, value in defaults)])
  return dataclasses.replace(exported, fun_name=name)


def read_defaults(exported: jax.export.Exported) -> SamplingDefaults:
  """The sampling defaults in the name of an exported function.

  Files of earlier versions have none: no truncation.
  """
  values = dict(re.findall(r'(\w+)=(\S+)', exported.fun_name))
  known = {k: float(v) for k, v in values.items() if k in SamplingDefaults._fields}
  return SamplingDefaults(**known)


def write_safetensors(path: Path, g: Variables, metadata: dict[str, str]) -> None:
  """Writes the arrays of `g` by path, atomically."""
  from safetensors.numpy import save_file

  flat = flatten(jax.device_get(g), '/')
  arrays = {name: np.asarray(x, order='C') for name, x in flat.items()}
  with atomic_path(path) as part:
    save_file(arrays, part, metadata)


def model_section(gan: GAN) -> dict[str, Any]:
  """The model section of a config that builds `gan`, without default values."""
  section: dict[str, Any] = {'family': type(gan).__name__.lower()}
  for field in dataclasses.fields(gan):
    value = vars(gan)[field.name]
    if value != field.default:
      section[field.name] = value
  return section
