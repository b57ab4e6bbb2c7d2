"""Formats the figures of a stage as text."""

from collections.abc import Iterator
from typing import Any

from gan_jax.plan.gpus import USABLE_MEMORY
from gan_jax.plan.stage_cost import Row

# Of the usable memory, what JAX takes of a GPU by default.
DEFAULT_FRACTION = 0.75 / USABLE_MEMORY
# Rows of gathers and scatters that the time leaves out, from which on they are named: a
# TPU v5e takes about 7 cycles for each.
MANY_ROWS = 100_000


def format_row(row: Row, top: int) -> str:
  """One paragraph with the figures of a stage.

  Args:
    row: figures of the stage, and the config keys that were overridden.
    top: number of groups of operations to list.
  """
  overrides = ''.join(
    f', {key}={row[key]}'
    for key in row
    if '.' in key and not isinstance(row[key], dict)
  )
  lines = [
    f'{row["config"]} on {row["topology"]} ({row["chips"]} x {row["chip"]["name"]}), '
    f'{row["pixels"]} pixels, batch {row["batch"]}{overrides}'
  ]
  figures = dict(_memory_lines(row))
  if 'program_flops' in row:
    figures |= dict(_program_lines(row))
  lines += [f'  {name:<12} {text}' for name, text in figures.items()]
  for group in row.get('top', [])[:top]:
    lines.append(
      f'    {group["cycles"] / row["cycles"]:6.1%}  {group["kind"]:<10} '
      f'{group["pass"]:<8}  {group["layer"]}'
    )
  return '\n'.join(lines) + '\n'


def _memory_lines(row: Row) -> Iterator[tuple[str, str]]:
  """(name, text) of what is known even if the program does not compile."""
  needed, hbm = row.get('hbm_bytes'), row['chip']['hbm']
  need = format_bytes(needed) if needed else 'more than available'
  limit = f' of {format_bytes(hbm)}' if hbm else ''
  verdict = 'fits' if row['fits'] else f'DOES NOT FIT; {row["advice"]}'
  if row['fits'] and 'kernels' in row and needed > DEFAULT_FRACTION * hbm:
    verdict = 'fits with XLA_PYTHON_CLIENT_MEM_FRACTION=0.95'
  yield 'memory', f'{need}{limit} per device: {verdict}'
  yield (
    'state',
    f'parameters {format_bytes(row["params_bytes"])}, optimizers '
    f'{format_bytes(row["optimizer_bytes"])}, EMA weights '
    f'{format_bytes(row["ema_bytes"])}',
  )


def _program_lines(row: Row) -> Iterator[tuple[str, str]]:
  """(name, text) of the figures of a compiled program."""
  yield (
    'work',
    f'networks {row["networks_flops"] / 1e12:.3g} TFLOP, weights '
    f'{row["weights_flops"] / 1e12:.3g} TFLOP; compiled '
    f'{row["program_flops"] / 1e12:.3g} TFLOP, '
    f'{format_bytes(row["program_bytes"])} moved',
  )
  cycles = f'{row["cycles"] / 1e6:.1f} M estimated cycles, ' if row['cycles'] else ''
  if 'kernels' in row:
    cycles = f'{row["kernels"]:,} kernels, '
  yield (
    'time',
    f'{cycles}{format_seconds(row["step_s"])} per step; '
    f'{row["images_per_s"]:,.0f} images/s',
  )
  rows = row.get('rows_without_estimate', 0)
  if row['cycles'] and rows >= MANY_ROWS:
    yield 'not counted', f'gathers and scatters of {rows / 1e6:,.3g} M rows'
  yield (
    'MFU',
    f'{row["mfu"]:.1%}; {row["slowest_mfu"]:.1%} if collectives do not overlap',
  )
  yield (
    'roofline',
    f'compute {format_seconds(row["compute_s"])}, memory '
    f'{format_seconds(row["memory_s"])}, collectives '
    f'{format_seconds(row["collectives_s"])}',
  )
  yield 'collectives', ', '.join(map(_collective, row['collectives'])) or 'none'
  yield (
    'donation',
    f'{row["donated"]} arrays, {format_bytes(row["donated_bytes"])} of '
    f'{format_bytes(row["state_bytes"])} of state',
  )
  if 'padding' in row:
    yield 'padding', f'{row["padding"]:.0%} of the bytes written'
  if 'copied' in row:
    plural = {'copy': 'copies', 'transpose': 'transposes'}
    copied = [
      f'{c["count"]} {plural[name]} ({format_bytes(c["bytes"])})'
      for name, c in row['copied'].items()
    ]
    yield 'copies', ', '.join(copied) or 'none'
    products = [f'{count} {name}' for name, count in sorted(row['products'].items())]
    layouts = [f'{count} {name}' for name, count in row['layouts'].items()]
    yield 'products', f'{", ".join(products)}; layouts {", ".join(layouts)}'


def _collective(c: dict[str, Any]) -> str:
  """One kind of collective, and between GPUs what one sends within and to nodes."""
  text = f'{c["count"]} {c["kind"]} ({format_bytes(c["bytes"])})'
  if 'network' not in c:
    return text
  sent = f'sent {format_bytes(c["sent"] - c["network"])} in nodes'
  between = f', {format_bytes(c["network"])} between' if c['between_nodes'] else ''
  return f'{text[:-1]}; {sent}{between})'


def format_bytes(n: float) -> str:
  """'1.5 GB'."""
  for unit, size in (('GB', 1e9), ('MB', 1e6), ('kB', 1e3)):
    if n >= size:
      return f'{n / size:.3g} {unit}'
  return f'{n:.0f} B'


def format_seconds(seconds: float) -> str:
  """'3.2 days', '150 s' or '82 ms'."""
  for unit, size in (('days', 86400), ('h', 3600), ('min', 60), ('s', 1)):
    if seconds >= 2 * size:
      return f'{seconds / size:.3g} {unit}'
  return f'{seconds * 1e3:.3g} ms'
