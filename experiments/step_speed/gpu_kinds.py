"""Where a step compiled for GPUs spends kernels and bytes, by kind. See README.md.

Reads a compiled program of the planner's cache: ~/.cache/gan_jax/plan/*.json.gz.
"""

import argparse
import gzip
import json
import re
from collections import Counter, defaultdict
from pathlib import Path

from gan_jax.plan import hlo, kernels
from gan_jax.plan.gpus import GPUS

# The first that fits: a kernel's library function or the names of the fused operations
# at its end, and of the layer that they come from.
KINDS = {
  'convolutions': r'__cudnn\$conv(Forward|BiasAct)',
  'their gradients by maps': r'__cudnn\$convBackwardInput',
  'their gradients by kernels': r'__cudnn\$convBackwardFilter',
  'attention': r'__cudnn\$fmha|attention.*(pad|slice|pool|scatter|reduce_window)'
  r'|reduce_window|scatter|attention.*transpose\(jvp',
  '1x1 products': r'dot.*(conv_sc|attention)',
  'spectral norm': r'spectral_norm',
  'optimizer': r'optimizer',
  'EMA': r'ema_update',
  'shortcuts: bias, upsampling, mean': r'conv_sc',
  'norms: statistics': r'(?<!add )reduce.*stats',
  'norms and ReLU': r'jvp\((Generator|Discriminator)\)/(\S*/)?max$',
  'gradients of norms, ReLU and bias': r'transpose\(jvp.*'
  r'(bn\d|norm|select_n|dot_general|reduce_sum)',
  'sums of maps': r'add(_any)?$|attention\S*mul$|stats/reduce_sum',
  'kernels: types and layouts': r'convert_element_type|transpose|reshape|barrier|kernel'
  r'|conv\d/div$',
  'copies, slices, pads': r'\b(copy|wrapped_slice|\w*(pad|concat)\w*)',
}


def kind_of(program: hlo.Program, op: hlo.Op) -> str:
  """The kind of a kernel."""
  library = hlo.custom_call_target(op)
  inner = [o for callee in op.calls for o in program.computations.get(callee, ())]
  opcodes = {o.opcode for o in inner}
  text = f'{library} {"dot" if "dot" in opcodes else ""} {op.name} {op.op_name}'
  return next((kind for kind, fits in KINDS.items() if re.search(fits, text)), 'rest')


def main() -> None:
  p = argparse.ArgumentParser(description=__doc__)
  p.add_argument('program', type=Path, help="FILE.json.gz of the planner's cache")
  p.add_argument('--gpu', default='h100', choices=GPUS)
  args = p.parse_args()
  text = json.loads(gzip.decompress(args.program.read_bytes()))['text']
  program, total = kernels.estimate(hlo.parse(text), GPUS[args.gpu])
  homes = {op.name: c for c, ops in program.computations.items() for op in ops}
  sums: dict[str, Counter[str]] = defaultdict(Counter)
  for op, count, fused in hlo.executed_ops(program):
    if fused or not op.cycles:
      continue
    shapes = {o.name: o.shape for o in program.computations[homes[op.name]]}
    sums[kind_of(program, op)].update(
      kernels=count,
      written=count * hlo.shape_nbytes(op.shape),
      moved=count * kernels.kernel_nbytes(program, op, shapes),
      ns=count * op.cycles,
    )
  print(
    '| kind | kernels | GB written | GB read and written | ms |\n|---|---|---|---|---|'
  )
  for kind, s in sorted(sums.items(), key=lambda item: -item[1]['written']):
    figures = s['written'] / 1e9, s['moved'] / 1e9, s['ns'] / 1e6
    print(
      f'| {kind} | {s["kernels"]:,} | ' + ' | '.join(f'{x:.2f}' for x in figures), '|'
    )
  print(
    f'| all | {total.kernels:,} | {hlo.written_nbytes(program)[0] / 1e9:.2f} | '
    f'{total.nbytes / 1e9:.2f} | {hlo.total_cycles(program) / 1e6:.2f} |'
  )


if __name__ == '__main__':
  main()
