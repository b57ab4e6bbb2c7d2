"""Digests over all images of a dataset, most of them without reading an image.

They tell whether a run is resumed, or a cached statistic used, on the data it began
with. Each covers one aspect, so that a message can name what has changed:

  names: names of the images below their folder or zip, in the order of their indices.
  sizes: bytes of each encoded image.
  labels: label of each image.
  content: checksums of the images of a zip, or of the files of a prepared set.
  records: names and bytes of the files of a tensorflow-datasets set.
  version: modification times, checksums, or pixels: changes at every edit, but differs
    between copies of one dataset as well.

All but `version` are the identity of a dataset: a folder that was moved or copied is
the same data. Cached statistics depend on `version` too.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from gan_jax.data.folder import ImageSource

IDENTITY = {  # digest -> what a message says that has changed
  'names': 'the names or the order of the images',
  'sizes': 'the sizes of the image files',
  'labels': 'the labels of the images',
  'content': 'the images',
  'records': 'the files of the set',
}


def digest(items: Iterable[Any]) -> str:
  """Digest of a sequence of values, which their `repr` tells apart."""
  sha = hashlib.sha256()
  for item in items:
    sha.update(f'{item!r}\n'.encode())
  return sha.hexdigest()[:16]


def source_digests(
  source: ImageSource, ranges: Mapping[Any, Any] | None = None
) -> dict[str, str]:
  """Digests of the images of a folder or zip.

  Args:
    ranges: the values of deep images that become black and white, by kind of image.
  """
  digests = {
    'names': digest(map(source.display_name, range(source.n_images))),
    'sizes': digest(source.file_sizes),
    'labels': digest(source.labels.tolist()),
    'version': digest([source.fingerprint, *sorted((ranges or {}).items())]),
  }
  if source.kind == 'zip':  # its fingerprint holds checksums in place of times
    digests['content'] = source.fingerprint
  return digests


def array_digests(
  images: UInt8[np.ndarray, 'n h w c'], labels: Int[np.ndarray, ' n']
) -> dict[str, str]:
  """Digests of images that are built in; another decoder may change a few pixels."""
  pixels = hashlib.sha256(np.ascontiguousarray(images).tobytes()).hexdigest()
  return {'labels': digest(labels.tolist()), 'version': pixels}


def identity(digests: Mapping[str, str]) -> dict[str, str]:
  """The digests that stay when the files are moved or copied."""
  return {name: digests[name] for name in IDENTITY if name in digests}
