"""A tensorflow-datasets set that several modules read."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.data.images import encode

TALL = np.arange(5 * 9 * 3, dtype=np.uint8).reshape(9, 5, 3)


@pytest.fixture(scope='session')
def tall_image():
  """The image 'tall' of tiny_tfds, 9 x 5 pixels."""
  return TALL


@pytest.fixture(scope='session')
def tiny_tfds(tmp_path_factory):
  """A folder with the set tiny_images 1.0.0, prepared by a process of its own."""
  folder = tmp_path_factory.mktemp('tfds')
  images = {'a': np.full((4, 4, 3), 9, np.uint8), 'b': TALL, 'c': TALL[:5, :5]}
  for name, pixels in images.items():
    (folder / f'{name}.png').write_bytes(encode(pixels))
  (folder / 'x.png').write_bytes(encode(TALL)[:45])
  program = Path(__file__).parent / 'programs' / 'prepare_tiny_images.py'
  subprocess.run([sys.executable, program, folder], check=True, capture_output=True)
  return folder
