"""What a run records of its dataset, and how that differs from another dataset."""

from collections.abc import Mapping, Sequence
from typing import Any

from gan_jax.data.dataset import Dataset
from gan_jax.data.digests import IDENTITY, identity

Record = Mapping[str, Any]  # JSON


def make_record(dataset: Dataset) -> dict[str, Any]:
  """Number of images, class names, and the digests that equal copies share.

  If the images are padded, also the box of what is not padding, see `Dataset.content`.
  """
  padded = dataset.content != (0, 0, 1, 1)
  return {
    'images': len(dataset.examples),
    'classes': list(dataset.class_names),
    'digests': identity(dataset.digests),
    **({'content': list(dataset.content)} if padded else {}),
  }


def is_comparable(record: Record, dataset: Dataset) -> bool:
  """Whether a digest of the record can be compared with one of the dataset.

  Runs of earlier versions, and other kinds of sources, have none.
  """
  return bool({*record.get('digests', {})} & {*identity(dataset.digests)})


def find_changes(record: Record, dataset: Dataset) -> list[str]:
  """What has changed from a record to a dataset, in words; [] if nothing has.

  What the record lacks is not compared.
  """
  now = make_record(dataset)
  changes = []
  if record.get('images', now['images']) != now['images']:
    changes.append(f'{record["images"]} -> {now["images"]} images')
  if record.get('classes', now['classes']) != now['classes']:
    changes.append(_class_changes(record['classes'], now['classes']))
  if changes:
    return changes
  before, after = record.get('digests', {}), now['digests']
  common = [name for name in IDENTITY if name in before and name in after]
  return [IDENTITY[name] for name in common if before[name] != after[name]]


def _class_changes(before: Sequence[str], after: Sequence[str]) -> str:
  lost = [name for name in before if name not in {*after}]
  new = [name for name in after if name not in {*before}]
  if not lost and not new:
    return f'order of the classes: {_few(before)} -> {_few(after)}'
  parts = (('lost', lost), ('new', new))
  return ', '.join(f'{word} classes: {_few(x)}' for word, x in parts if x)


def _few(names: Sequence[str], limit: int = 5) -> str:
  rest = len(names) - limit
  return ', '.join([*names[:limit], *([f'{rest} more'] if rest > 0 else [])])
