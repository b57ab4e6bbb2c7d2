"""Images, folders and zips that the tests of gan_jax.data and gan_jax.prepare read."""

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

RAMP = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
COLORS = np.stack([RAMP, RAMP.T, 255 - RAMP], -1)


def encode(image, kind='PNG', **options) -> bytes:
  """Encodes an array or a PIL image with PIL's encoder of that kind."""
  file = io.BytesIO()
  image = image if isinstance(image, Image.Image) else Image.fromarray(image)
  image.save(file, kind, **options)
  return file.getvalue()


PNG = encode(COLORS)


def random_image(rng, height=32, width=32, channels=3):
  return rng.integers(0, 256, (height, width, channels), np.uint8)


def write_files(folder: Path, files: dict[str, bytes]) -> None:
  """Writes relative path -> content below `folder`."""
  for name, content in files.items():
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


def file_contents(folder: Path) -> dict[str, bytes]:
  """Relative path -> content of every file below `folder`."""
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in sorted(folder.rglob('*'))
    if path.is_file()
  }


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
  with zipfile.ZipFile(path, 'w') as archive:
    for name, content in files.items():
      archive.writestr(name, content)
  return path


def write_image_folder(root: Path, n=20, side=16, classes=('cat', 'dog')):
  """Writes n PNGs, alternating between the classes; returns their pixels, sorted."""
  rng = np.random.default_rng(1)
  for i in range(n):
    name = f'{classes[i % len(classes)]}/{i:03d}.png'
    write_files(root, {name: encode(random_image(rng, side, side))})
  return np.stack([np.asarray(Image.open(p)) for p in sorted(root.rglob('*.png'))])


class NumberedExamples:
  """Image i has the value i and the label i; its left column is 0, to show a flip."""

  def __init__(self, n):
    self.n = n

  def __len__(self):
    return self.n

  def __getitem__(self, i):
    image = np.full((2, 2, 1), i, np.uint8)
    image[:, 0] = 0
    return image, i


def read_examples(examples):
  """(images, labels) of all examples, stacked."""
  images, labels = zip(*map(examples.__getitem__, range(len(examples))))
  return np.stack(images), np.array(labels)
