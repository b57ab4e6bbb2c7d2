"""The cases that are timed on a GPU, in the order of their importance.

No framework is imported here, so that both sides read the same cases.
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / 'peer_speed'))
import cases  # the networks of the comparison on CPUs

BATCHES = (1, 16, 256)  # images sampled at once


def biggan128(batch: int, tiny: bool = False) -> dict[str, Any]:
  """configs/biggan_imagenet.py:128 with its published widths and one D step."""
  one = cases.biggan128(batch, tiny)
  if tiny:
    return one
  model, nets = one['config']['model'], one['nets']
  model |= dict(g_ch=96, d_ch=96)
  for name in ('g_widths', 'd_widths'):
    nets[name] = [96 * width for width in model[name]]
  return one


def growing(family: str, res: int, batch: int, tiny: bool = False) -> dict[str, Any]:
  """The last stage of a growing GAN with its published widths."""
  one = cases.growing(family, res, batch, tiny)
  if not tiny:
    stages = range(res.bit_length() - 1)
    widths = [min(8192 >> s, 512) for s in stages]
    for place in (one['config']['model'], one['nets']):
      place |= dict(g_widths=widths, d_widths=widths)
  return one


def in_dtype(one: dict[str, Any], dtype: str) -> dict[str, Any]:
  """A case with networks in a dtype; PyTorch's run under autocast in bfloat16."""
  one['config']['model']['dtype'] = dtype
  return one | {'dtype': dtype}


# The published pairs of dtype and batch first; what is left of the time goes to others.
CASES = {
  'biggan128-b256': lambda tiny: in_dtype(biggan128(256, tiny), 'bfloat16'),
  'stylegan1024-bf16': lambda tiny: in_dtype(
    growing('stylegan', 1024, 8, tiny), 'bfloat16'
  ),
  'biggan32-b256': lambda tiny: in_dtype(cases.biggan32(256, tiny), 'bfloat16'),
  'stylegan256': lambda tiny: in_dtype(growing('stylegan', 256, 16, tiny), 'float32'),
  'progan1024': lambda tiny: in_dtype(growing('progan', 1024, 4, tiny), 'float32'),
  'biggan128-b128': lambda tiny: in_dtype(biggan128(128, tiny), 'bfloat16'),
  'stylegan1024': lambda tiny: in_dtype(growing('stylegan', 1024, 8, tiny), 'float32'),
  'biggan128-b32': lambda tiny: in_dtype(biggan128(32, tiny), 'bfloat16'),
}
FAMILIES = ('biggan128-b256', 'stylegan1024-bf16', 'progan1024')  # one case each


def flops(one: dict[str, Any]) -> tuple[int, float]:
  """FLOPs of an iteration, and of one sampled image; see `cases.flops`."""
  iteration, sampled = cases.flops(one)
  return iteration, sampled / cases.SAMPLES
