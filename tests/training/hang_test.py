"""A reader that blocks: the watchdog reports it and ends the process."""

import threading

import pytest

from gan_jax import data
from gan_jax.config import parse_config
from gan_jax.runtime.watchdog import Watchdog
from gan_jax.training.trainer import Trainer
from tests.runs import tiny_config


@pytest.mark.slow
def test_a_reader_that_blocks_is_reported_and_ended(tmp_path, monkeypatch):
  """At its first batch, and at a later one; here the end makes it go on."""
  go_on, printed, ended = threading.Event(), [], []
  iterate_batches = data.iterate_batches

  def blocking(*args, **kwargs):
    for i, batch in enumerate(iterate_batches(*args, **kwargs)):
      if i in (0, 3):
        assert go_on.wait(60)
        go_on.clear()
      yield batch

  def leave(text):
    if not go_on.is_set():
      ended.append(text)
      go_on.set()

  monkeypatch.setattr(data, 'iterate_batches', blocking)
  dog = Watchdog(1, 1, print_stacks=printed.append, leave=leave)
  config = parse_config(tiny_config(train__images=32))
  state = Trainer(config, tmp_path, watchdog=dog).run()
  assert int(state.images) == 32
  first, *_, later = printed
  assert 'opening the data has made no progress' in first
  assert 'while waiting for the first batch of images' in first
  assert 'training has made no progress' in later
  assert 'while waiting for the next batch of images' in later
  assert 'while waiting for the first batch' in ended[0]
  assert 'while waiting for the next batch' in ended[-1]
