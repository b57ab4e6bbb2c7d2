"""URLs of stores are told apart from paths, and mistakes in them are named."""

import pytest

from gan_jax import UserError
from gan_jax.runtime.urls import check_path, check_url, is_url


@pytest.mark.parametrize(
  'text',
  ['gs://b/x', 's3://b', 'gs:/b/x', 'GS:/b', 'hdfs://h/x', 'gs:///b', 'http://x'],
)
def test_urls_are_no_paths(text):
  assert is_url(text)
  with pytest.raises(UserError, match='is a URL'):
    check_path(text)


@pytest.mark.parametrize('text', ['runs/a', '/a:b/c', 'a:b', './gs:/x', 'gs:x', '~/x'])
def test_paths_stay_as_they_are(text):
  assert check_path(text) == text


@pytest.mark.parametrize(
  'text, url',
  [
    ('gs://b/x', 'gs://b/x'),
    ('S3://b/runs//a/', 's3://b/runs/a'),
  ],
)
def test_a_url_is_written_in_one_way(text, url):
  assert check_url(text) == url


@pytest.mark.parametrize(
  'text, sentence',
  [
    ('gcs://b/x', r'gcs:// is not supported.* gs://BUCKET/NAME and s3://BUCKET/NAME'),
    ('gs:/b/x', r'two slashes follow gs:, as in gs://b/x\.'),
    ('gs:///b/x', r'two slashes follow gs:, as in gs://b/x\.'),
    ('gs://b', r'gs://b lacks a name below the bucket: write gs://b/NAME\.'),
    ('gs://', r'lacks a bucket: write gs://BUCKET/NAME\.'),
    ('s3://b/../x', r'write them out'),
  ],
)
def test_a_mistake_in_a_url_is_named(text, sentence):
  with pytest.raises(UserError, match=sentence):
    check_url(text)


def test_a_bucket_is_a_folder_where_that_is_allowed():
  assert check_url('s3://b/', bucket_alone=True) == 's3://b'
  assert check_url('s3://b/x', bucket_alone=True) == 's3://b/x'
  with pytest.raises(UserError, match=r's3:// lacks a bucket: write s3://BUCKET\.'):
    check_url('s3://', bucket_alone=True)
