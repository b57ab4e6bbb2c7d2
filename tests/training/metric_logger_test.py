"""metrics.jsonl: what is written when, what a resumed run keeps, full disks."""

import contextlib
import json

import numpy as np
import pytest

from gan_jax.storage.json_lines import read_json_lines
from gan_jax.training.metric_logger import METRICS, MetricLogger, crosses_multiple
from gan_jax.training.tracking import Tracking


@contextlib.contextmanager
def make_logger(workdir, images=0, **kwargs):
  messages = []
  with (
    Tracking(workdir, ('tensorboard',), messages.append) as tracking,
    MetricLogger(
      workdir,
      total=100,
      images=images,
      active=True,
      tracking=tracking,
      log=messages.append,
      **kwargs,
    ) as logger,
  ):
    logger.messages = messages
    yield logger


@pytest.mark.parametrize(
  'before, after, every, crosses',
  [(0, 8, 8, True), (8, 15, 8, False), (7, 8, 8, True), (0, 7, 8, False)],
)
def test_crossing_a_multiple(before, after, every, crosses):
  assert crosses_multiple(before, after, every) == crosses


def test_deferred_metrics_are_written_at_multiples_without_non_finite_values(tmp_path):
  lines = []
  with make_logger(tmp_path, on_line=lines.append) as logger:
    assert logger.flush(16) is None
    for images in (8, 16):
      logger.defer(images, {'g_loss': np.float32(images), 'd_loss': np.float32('nan')})
      assert logger.flush(16)['g_loss'] == images
  (line,) = read_json_lines(tmp_path / METRICS)
  assert line['images'] == 16 and line['g_loss'] == 16 and 'd_loss' not in line
  assert lines == [line]
  assert list((tmp_path / 'tensorboard').iterdir())


def test_a_resumed_run_drops_later_lines_and_passes_on_the_others(tmp_path):
  (tmp_path / METRICS).write_text(
    ''.join(json.dumps({'images': n}) + '\n' for n in (8, 16, 24)) + '{"ima'
  )
  lines = []
  with make_logger(tmp_path, images=16, on_line=lines.append):
    pass
  assert lines == read_json_lines(tmp_path / METRICS) == [{'images': 8}, {'images': 16}]
  assert len((tmp_path / METRICS).read_text().splitlines()) == 2


def test_a_file_that_cannot_be_written_is_logged_once(tmp_path):
  with make_logger(tmp_path) as logger:
    (tmp_path / METRICS).mkdir()
    (tmp_path / 'tensorboard').write_text('')
    logger.write({'images': 8, 'step': 1})
    logger.write({'images': 16, 'step': 2})
  (message,) = logger.messages
  assert 'could not be written' in message
