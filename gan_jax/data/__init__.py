"""Datasets with random access, read in one endless global order by all hosts."""

from gan_jax.data.built_in import BUILT_IN
from gan_jax.data.checks import check_fake_labels, check_hosts, check_labels
from gan_jax.data.dataset import CorruptImageError, Dataset, Examples, label_of
from gan_jax.data.folder import Label, MissingDataError, is_path
from gan_jax.data.load import load_dataset
from gan_jax.data.loader import iterate_batches
from gan_jax.data.prepared import MANIFEST
from gan_jax.data.record import find_changes, is_comparable, make_record
from gan_jax.data.summary import evenly_spaced, summarize
from gan_jax.data.tfds_source import TfdsRecords, open_tfds

__all__ = [
  'BUILT_IN',
  'MANIFEST',
  'CorruptImageError',
  'Dataset',
  'Examples',
  'Label',
  'MissingDataError',
  'TfdsRecords',
  'check_hosts',
  'check_fake_labels',
  'check_labels',
  'evenly_spaced',
  'find_changes',
  'is_comparable',
  'is_path',
  'iterate_batches',
  'label_of',
  'load_dataset',
  'make_record',
  'open_tfds',
  'summarize',
]
