"""A generator as files that need no gan_jax: a program with its weights, and weights.

`write` makes two of them. `gen.stablehlo` is an artifact of jax.export for CPU, TPU
and CUDA, made on any of these: a function of z, class weights and psi, with the weights
inside and a batch of any size. `gen.safetensors` has the weights by path, and in its
header the model section of the config.
"""

import dataclasses
import json
import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from gan_jax import UserError
from gan_jax.models.base import GAN, Variables, to_uint8
from gan_jax.storage.files import atomic_path

PLATFORMS = ('cpu', 'tpu', 'cuda')
ALIGNMENT = 64  # bytes, of the first array in a .safetensors file


def export_generator(
  gan: GAN,
  g: Variables,
  path: Path | str,
  platforms: Sequence[str] = PLATFORMS,
  **fixed: Any,
) -> tuple[Path, Path]:
  """Writes `path` (.stablehlo) and the .safetensors of the same name, whole or not.

  The program takes z float32 [b, dim_z], classes float32 [b, n_classes] (weights,
  one-hot for one class; [b, 0] of a model without) and psi, a float32 scalar; it gives
  uint8 [b, res, res, channels], the same bits as the sampler where it runs on the same
  kind of device. Noise beside z is the one stored with the weights.

  Args:
    g: variables of the generator; usually the averaged one, with the batch statistics
      that pictures are to be drawn with.
    platforms: what the program is compiled for when it is loaded.
    fixed: further arguments of `gan.generate`: `res` and `alpha` of a GAN that has not
      grown up.

  Returns:
    Both paths.

  Raises:
    UserError: another ending, a package that is missing, a folder that is read-only.
  """
  path = Path(path)
  if path.suffix != '.stablehlo':
    raise UserError(f'{path}: the name of an exported generator ends in .stablehlo.')
  program = export_program(gan, g, platforms, **fixed)
  try:
    blob = program.serialize()
  except ImportError as error:
    raise UserError(
      "exporting needs a package: pip install 'gan_jax[export]'."
    ) from error
  weights = path.with_suffix('.safetensors')
  config = {'gan_jax': json.dumps(model_section(gan))}
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, [bytes(blob)])
    _replace(weights, safetensors(flat(g), config))
  except OSError as error:
    raise UserError(f'{path} cannot be written: {error.strerror}.') from error
  return path, weights


def export_program(
  gan: GAN, g: Variables, platforms: Sequence[str] = PLATFORMS, **fixed: Any
) -> jax.export.Exported:
  """The program of `write`, to be called or serialised."""
  constants = jax.tree.map(np.asarray, jax.device_get(g))

  def draw(z: Array, classes: Array, psi: ArrayLike) -> Array:
    # Behind the barrier the compiler takes the weights for inputs. It would work on
    # constants itself, for minutes and to other last bits than the sampler's.
    variables = jax.lax.optimization_barrier(constants)
    labels = classes if gan.n_classes else jnp.zeros(z.shape[0], jnp.int32)
    images = gan.generate(variables, z, labels, psi, **fixed)
    return to_uint8(images)

  (b,) = jax.export.symbolic_shape('b')
  shapes = ((b, gan.dim_z), (b, gan.n_classes), ())
  inputs = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
  return jax.export.export(jax.jit(draw), platforms=list(platforms))(*inputs)


def model_section(gan: GAN) -> dict[str, Any]:
  """The model section of a config that builds `gan`: what differs from defaults."""
  section: dict[str, Any] = {'family': type(gan).__name__.lower()}
  for field in dataclasses.fields(gan):
    value = vars(gan)[field.name]
    if value != field.default:
      section[field.name] = value
  return section


def flat(tree: Mapping[str, Any], prefix: str = '') -> dict[str, np.ndarray]:
  """Nested arrays by path: 'params/block0/conv1/kernel'."""
  found: dict[str, np.ndarray] = {}
  for name, value in tree.items():
    path = f'{prefix}{name}'
    if isinstance(value, Mapping):
      found |= flat(value, f'{path}/')
    else:
      found[path] = np.asarray(value)
  return found


_TYPES = {
  'float64': 'F64', 'float32': 'F32', 'float16': 'F16', 'bfloat16': 'BF16',
  'int64': 'I64', 'int32': 'I32', 'uint32': 'U32', 'uint8': 'U8', 'bool': 'BOOL',
}  # fmt: skip


def safetensors(
  arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> list[bytes]:
  """The parts of a .safetensors file (github.com/huggingface/safetensors)."""
  header: dict[str, Any] = {'__metadata__': dict(metadata)}
  at = 0
  for name, x in arrays.items():
    size = math.prod(x.shape) * x.dtype.itemsize
    header[name] = {
      'dtype': _TYPES[x.dtype.name],
      'shape': list(x.shape),
      'data_offsets': [at, at + size],
    }
    at += size
  text = json.dumps(header).encode()
  text += b' ' * (-(8 + len(text)) % ALIGNMENT)
  body = [np.ascontiguousarray(x).tobytes() for x in arrays.values()]
  return [struct.pack('<Q', len(text)), text, *body]


def _replace(path: Path, parts: Sequence[bytes]) -> None:
  with atomic_path(path) as part, part.open('wb') as f:
    f.writelines(parts)
