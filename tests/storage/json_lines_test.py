"""Reading JSON lines files of killed processes."""

import pytest

from gan_jax.storage.json_lines import read_json_lines


def test_a_missing_file_has_no_lines(tmp_path):
  assert read_json_lines(tmp_path / 'metrics.jsonl') == []


@pytest.mark.parametrize('broken', [b'{"images": 2', b'\xff\xfe', b'[1]', b'3', b'['])
def test_lines_without_an_object_are_skipped(broken, tmp_path):
  path = tmp_path / 'metrics.jsonl'
  path.write_bytes(b'{"images": 1}\n' + broken + b'\n{"images": 3}\n' + broken)
  assert read_json_lines(path) == [{'images': 1}, {'images': 3}]
