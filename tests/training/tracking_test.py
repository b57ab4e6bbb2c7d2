"""Trackers get each step once, over kills, rollbacks and failures of their own."""

import importlib
import json
import struct
import sys
import threading
import time

import pytest
from PIL import Image

from gan_jax import UserError
from gan_jax.config import parse_config
from gan_jax.storage.json_lines import append_json_lines
from gan_jax.training import trackers, tracking
from gan_jax.training.metric_logger import MetricLogger
from gan_jax.training.trackers import End
from gan_jax.training.tracking import Sender, Tracking
from gan_jax.training.trainer import Trainer
from tests.runs import tiny_config
from tests.training.recorder import Recorder

GRID = Image.new('RGB', (4, 2))


@pytest.fixture
def patient(monkeypatch):
  """Waits for real trackers on a busy machine."""
  monkeypatch.setattr(tracking, 'START_SECONDS', 300)
  monkeypatch.setattr(tracking, 'FINISH_SECONDS', 300)


@pytest.fixture
def recorder(monkeypatch):
  return Recorder.in_place_of_wandb(monkeypatch)


def send(tracker, workdir, lines, log=print, already=()):
  """A session with some lines, in a process of its own as far as the tracker sees."""
  sender = Sender('wandb', tracker, workdir / 'trackers/wandb.json', log)
  sender.start({'train': {'images': 9}}, 'emoji')
  sender.begin(already)
  for line in lines:
    sender.scalars(line['images'], line)
    sender.grid(line['images'], GRID)
  sender.finish(End.STOPPED)


def lines_at(*images):
  same = {'sigma': 5, 'sigma/0': 5, 'collapsed': 'text'}
  return [{'images': n, 'g_loss': n / 2} | same for n in images]


def test_a_tracker_gets_the_config_numbers_grids_and_the_end(tmp_path):
  tracker = Recorder()
  send(tracker, tmp_path, lines_at(8, 16))
  assert tracker.starts == [({'train': {'images': 9}}, 'emoji', None)]
  assert tracker.values == [{'g_loss': n, 'sigma': 5, 'sigma/0': 5} for n in (4, 8)]
  assert tracker.grids == [(8, (4, 2)), (16, (4, 2))]
  assert tracker.ends == [End.STOPPED]
  record = json.loads((tmp_path / 'trackers/wandb.json').read_text())
  assert record == {'run': 'run-1', 'images': 16}


def test_a_resumed_run_continues_its_run_and_sends_no_step_twice(tmp_path):
  tracker = Recorder()
  send(tracker, tmp_path, lines_at(8, 16, 24))
  # Killed after 24, resumed at 16.
  send(tracker, tmp_path, lines_at(24, 32), already=lines_at(8, 16))
  assert [run_id for *_, run_id in tracker.starts] == [None, 'run-1']
  assert tracker.steps == [n for n, _ in tracker.grids] == [8, 16, 24, 32]


def test_what_was_not_sent_is_sent_when_the_run_resumes(tmp_path):
  """Also all of it, to a tracker that a run gets later."""
  tracker = Recorder()
  send(tracker, tmp_path, lines_at(8))
  send(tracker, tmp_path, lines_at(32), already=lines_at(8, 16, 16, 24))
  assert tracker.steps == [8, 16, 16, 24, 32]
  tracker = Recorder()
  tracker.start = lambda *_: 'run-2'  # another service, which does not know run-1
  send(tracker, tmp_path, (), already=lines_at(8, 16))
  assert tracker.steps == [8, 16]


def test_a_rollback_sends_no_step_twice(tmp_path):
  tracker = Recorder()
  sender = Sender('wandb', tracker, tmp_path / 'wandb.json', print)
  sender.start({}, 'emoji')
  for start, *images in ((0, 8, 8, 16, 24), (8, 16, 24, 32, 32)):
    sender.begin(lines_at(*range(8, start + 1, 8)))
    for line in lines_at(*images):
      sender.scalars(line['images'], line)
  sender.grid(32, GRID)
  sender.grid(32, GRID)  # that of the end
  sender.finish(End.FINISHED)
  assert tracker.steps == [8, 8, 16, 24, 32, 32]
  assert len(tracker.grids) == 1


def test_failures_are_one_warning(tmp_path):
  said = []
  tracker = Recorder({'scalars': OSError('no route to host')})
  send(tracker, tmp_path, lines_at(8, 16), said.append)
  assert said == ['wandb could not be written (no route to host): going on']
  assert len(tracker.grids) == 2 and tracker.ends == [End.STOPPED]
  said.clear()
  tracker = Recorder({'start': TimeoutError('no answer')})
  send(tracker, tmp_path, lines_at(8, 16), said.append)
  assert said == ['wandb cannot start (no answer): training goes on without it']
  assert not tracker.grids and not tracker.ends


def test_a_service_that_does_not_answer_delays_neither_start_nor_end(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(tracking, 'START_SECONDS', 0.01)
  monkeypatch.setattr(tracking, 'FINISH_SECONDS', 0.01)
  monkeypatch.setattr(tracking, 'MAX_WAITING', 3)
  answers, said, tracker = threading.Event(), [], Recorder()
  start = tracker.start
  tracker.start = lambda *args: answers.wait(60) and start(*args)
  send(tracker, tmp_path, lines_at(8, 16, 24), said.append)
  assert said == [
    'wandb has not started yet: training does not wait for it',
    'wandb could not be written (too many lines wait to be sent): going on',
  ]
  assert not tracker.steps
  answers.set()
  for thread in threading.enumerate():
    if thread.name == 'wandb':
      thread.join(60)
  assert tracker.steps == [8] and tracker.grids == [(8, (4, 2))]


def test_a_resumed_run_hands_its_earlier_lines_to_the_tracker(tmp_path, recorder):
  append_json_lines(tmp_path / 'metrics.jsonl', lines_at(8, 16, 24))
  with Tracking(tmp_path, ('wandb',), pytest.fail) as tracking:
    tracking.start({}, 'emoji')
    for images in (16, 0):  # and a second session, after a rollback
      logger = MetricLogger(
        tmp_path,
        total=32,
        images=images,
        active=True,
        tracking=tracking,
        log=pytest.fail,
      )
      with logger:
        logger.write(lines_at(images + 8)[0])
  assert recorder.steps == [8, 16, 24] and recorder.ends == [End.FAILED]


def test_a_missing_package_or_login_is_a_mistake(tmp_path, monkeypatch, recorder):
  config = parse_config(tiny_config(log__trackers=('wandb',)))
  recorder.fails = {'start': UserError('log in')}
  with pytest.raises(UserError, match='^log in$'):
    Trainer(config, tmp_path / 'a').run()
  assert not (tmp_path / 'a/config.json').exists()
  for module in (None, json):  # not installed, and a folder ./wandb
    monkeypatch.setitem(sys.modules, 'wandb', module)
    with pytest.raises(
      UserError, match=r"^log.trackers contains 'wandb', .*gan_jax\[w"
    ):
      Trainer(config, tmp_path / 'b').run()
  assert not (tmp_path / 'b').exists()


def wandb_records(file):
  """The records of a .wandb file: the log format of LevelDB, blocks of 32 KiB."""
  content, at, record = file.read_bytes(), 7, b''
  while at + 7 < len(content):
    _, size, kind = struct.unpack_from('<IHB', content, at)
    left = 2**15 - at % 2**15
    if left < 7 or kind == 0:  # the rest of the block is empty
      at += left
      continue
    record += content[at + 7 : at + 7 + size]
    at += 7 + size
    if kind in (1, 4):  # the only part, or the last
      yield record
      record = b''


def wandb_history(files):
  """(step, g_loss) of all lines, which have a grid; names and configs of the runs."""
  pb = importlib.import_module('wandb.proto.wandb_internal_pb2')
  steps, names, configs = [], set(), set()
  for message in (pb.Record.FromString(x) for f in files for x in wandb_records(f)):
    values = {x.key or x.nested_key[0]: x.value_json for x in message.history.item}
    if 'g_loss' in values:
      steps.append((message.history.step.num, float(values['g_loss'])))
      assert 'samples' in values
    if message.HasField('run'):
      names.add(message.run.display_name)
      configs |= {(x.key, x.value_json) for x in message.run.config.update}
  return steps, names, configs


@pytest.mark.usefixtures('patient')
def test_wandb_itself_offline(tmp_path, monkeypatch):
  pytest.importorskip('wandb')
  for name, value in (('MODE', 'offline'), ('DIR', str(tmp_path)), ('SILENT', 'true')):
    monkeypatch.setenv(f'WANDB_{name}', value)
  send(trackers.WandB(), tmp_path, lines_at(8, 16), pytest.fail)
  time.sleep(1.1)  # wandb names the folders of a run by the second
  send(trackers.WandB(), tmp_path, lines_at(16, 24), pytest.fail, already=lines_at(8))
  record = json.loads((tmp_path / 'trackers/wandb.json').read_text())
  files = sorted((tmp_path / 'wandb').glob('offline-run-*/*.wandb'))
  assert [f.stem for f in files] == [f'run-{record["run"]}'] * 2
  deadline = time.monotonic() + 60  # wandb's own process closes the file
  while len((found := wandb_history(files))[0]) < 3 and time.monotonic() < deadline:
    time.sleep(0.1)
  steps, names, configs = found
  assert steps == [(8, 4), (16, 8), (24, 12)]
  assert names == {'emoji'} and ('train', '{"images":9}') in configs


@pytest.mark.usefixtures('patient')
def test_mlflow_itself_in_files(tmp_path, monkeypatch):
  mlflow = pytest.importorskip('mlflow')
  monkeypatch.setenv('MLFLOW_TRACKING_URI', (tmp_path / 'mlruns').as_uri())
  monkeypatch.setenv('MLFLOW_ALLOW_FILE_STORE', 'true')
  send(trackers.MLflow(), tmp_path, lines_at(8, 16), pytest.fail)
  send(trackers.MLflow(), tmp_path, lines_at(16, 24), pytest.fail, already=lines_at(8))
  client = mlflow.MlflowClient()
  (run,) = client.search_runs(['0'])
  assert run.info.run_name == 'emoji' and run.info.status == 'KILLED'
  assert run.data.params == {'train.images': '9'}
  assert run.data.metrics == {'g_loss': 12, 'sigma': 5, 'sigma.0': 5}
  history = client.get_metric_history(run.info.run_id, 'g_loss')
  assert [(x.step, x.value) for x in history] == [(8, 4), (16, 8), (24, 12)]
  images = client.list_artifacts(run.info.run_id, 'images')
  assert sum(x.path.endswith('.png') for x in images) == 3
  # In another store, which does not know the run: a new one with all of it.
  monkeypatch.setenv('MLFLOW_TRACKING_URI', (tmp_path / 'other').as_uri())
  send(trackers.MLflow(), tmp_path, (), pytest.fail, already=lines_at(8, 16))
  (run,) = mlflow.MlflowClient().search_runs(['0'])
  assert run.data.metrics['g_loss'] == 8
