"""A folder of images that several modules prepare."""

import numpy as np
import pytest

from tests.data.images import encode, random_image, write_files


@pytest.fixture
def folder(tmp_path):
  """12 different PNGs of 32 x 32 in the sub-folders cat and dog, and a text file."""
  rng = np.random.default_rng(0)
  root = tmp_path / 'src'
  names = [f'{kind}/{i}.png' for kind in ('cat', 'dog') for i in range(6)]
  write_files(root, {name: encode(random_image(rng)) for name in names})
  (root / 'notes.txt').write_text('not an image')
  return root
