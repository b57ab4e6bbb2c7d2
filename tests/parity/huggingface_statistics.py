"""The choice of batch statistics in pytorch-pretrained-BigGAN (model.py)."""

import math

import jax


def statistics_row(truncation, rows):
  """Row and weight in a table of `rows` rows for truncations from 0 to 1.

  Between two rows the *lower* one gets the fractional weight, the other way round than
  in linear interpolation.
  """
  weight, row = math.modf(truncation / (1 / (rows - 1)))
  return int(row), weight


def select_statistics(g, truncation, rows):
  """Variables with the batch statistics of one truncation in place of the table."""
  row, weight = statistics_row(truncation, rows)

  def select(table):
    if weight == 0:
      return table[row]
    return table[row] * weight + table[row + 1] * (1 - weight)

  return {**g, 'batch_stats': jax.tree.map(select, g['batch_stats'])}
