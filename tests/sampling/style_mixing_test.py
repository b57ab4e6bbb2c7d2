"""Style mixing: the layers of style ranges, and the styles of a mixing grid."""

import numpy as np
import pytest

from gan_jax.models.stylegan import StyleGAN
from gan_jax.sampling import style_mixing


def test_mixed_styles_take_layers_from_the_columns():
  rows = np.zeros((2, 6, 1), np.float32)
  columns = np.arange(1, 4, dtype=np.float32).reshape(3, 1, 1) * np.ones((3, 6, 1))
  mixed = style_mixing.mix_styles(rows, columns, [range(2), range(4, 6)])
  assert mixed.shape == (2 * 2 * 3, 6, 1)
  mixed = mixed.reshape(2, 2, 3, 6)  # band, row, column, layer
  np.testing.assert_array_equal(mixed[0, 1, 2], [3, 3, 0, 0, 0, 0])
  np.testing.assert_array_equal(mixed[1, 0, 1], [0, 0, 0, 0, 2, 2])


@pytest.mark.parametrize(
  'res, ends', [(1024, [4, 8, 18]), (256, [4, 8, 14]), (32, [2, 4, 8]), (8, [2, 4, 4])]
)
def test_style_ranges(res, ends):
  ranges = style_mixing.style_ranges(StyleGAN(res=res))
  assert list(ranges) == ['coarse', 'middle', 'fine']
  assert [r.stop for r in ranges.values()] == ends
