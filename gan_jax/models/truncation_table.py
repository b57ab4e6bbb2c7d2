"""Batch statistics as a table over the truncation psi, as in published BigGAN-deep.

Source: pytorch-pretrained-BigGAN, model.py. Row k of n holds the statistics for z drawn
with threshold 2 and scaled by psi = k / (n - 1).
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from gan_jax.models.base import Variables

_STEPS = 2**20  # fixed-point steps of a row


def row_weights(psi: ArrayLike, rows: int) -> Float[Array, ' rows']:
  """Weights of the table's rows for psi.

  Of rows i and i + 1 around psi * (rows - 1), row i gets the fractional part and row
  i + 1 the rest: the reverse of linear interpolation, but how the published images were
  made. There, float64 rounding decides the row of a psi on the grid, and here as well.
  """
  last = rows - 1
  grid = [math.modf(k / last / (1 / last)) for k in range(rows)]
  # Fixed point, so that no compiler can contract the operations that follow.
  steps = jnp.clip(jnp.asarray(psi, jnp.float32), 0, 1) * np.float32(last * _STEPS)
  position = jnp.round(steps).astype(jnp.int32)
  nearest = (position + _STEPS // 2) // _STEPS
  on_grid = jnp.abs(position - nearest * _STEPS) < 16
  of_grid = jnp.array([(int(k), int(p * _STEPS)) for p, k in grid], jnp.int32)[nearest]
  lower = jnp.where(on_grid, of_grid[0], position // _STEPS)
  part = jnp.where(on_grid, of_grid[1], position & (_STEPS - 1)) * np.float32(2**-20)
  part = jnp.where(part == 0, 1.0, part)  # exactly on a row: that row alone
  number = jnp.arange(rows)
  weights = jnp.where(number == lower, part, 0.0)
  weights += jnp.where(number == lower + 1, 1 - part, 0.0)
  return weights


def statistics_at(batch_stats: Variables, psi: ArrayLike, rows: int) -> Variables:
  """The batch statistics for psi, from tables with a leading axis of `rows`."""
  weights = row_weights(psi, rows)

  def weighted(table: Array) -> Array:
    # A matrix product: its result has the same bits in every program.
    by_row = weights.astype(table.dtype)
    return jnp.tensordot(by_row, table, 1, precision=jax.lax.Precision.HIGHEST)

  return jax.tree.map(weighted, batch_stats)


def update_table(table: Variables, before: Variables, after: Variables) -> Variables:
  """The table after a training step changed its last row from `before` to `after`.

  All rows follow: means are shifted and variances scaled by the same amount.
  """

  def update(path: Any, table: Array, before: Array, after: Array) -> Array:
    if path[-1].key == 'mean':
      return table + (after - before)[None]
    return table * (after / jnp.maximum(before, 1e-12))[None]

  return jax.tree_util.tree_map_with_path(update, table, before, after)
