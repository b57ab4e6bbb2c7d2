"""experiments/gpu_speed: turns, what fails, and the table; no network is trained."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / 'experiments' / 'gpu_speed'


def load_experiment():
  """Its run.py and its cases, of which the first imports the second by name."""
  before = list(sys.path)
  sys.path.insert(0, str(FOLDER))
  try:
    spec = importlib.util.spec_from_file_location('gpu_speed', FOLDER / 'run.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module, sys.modules['gpu_cases']
  finally:
    sys.path[:] = before


gpu_speed, gpu_cases = load_experiment()

# A worker whose training takes no time, and which fails at what it does not know.
WORKER = """
import json, sys
print(json.dumps({'version': 'none'}), flush=True)
for line in sys.stdin:
  command, *rest = line.split()
  wall = {'train': 0.25, 'images': 0.5}[command]
  print(json.dumps({'wall': wall * int(rest[-1])}), flush=True)
"""


def worker(clock, program=WORKER):
  return gpu_speed.Worker([sys.executable, '-c', program], clock)


def arguments(*argv):
  return gpu_speed.make_parser().parse_args(argv)


def test_sides_take_turns_and_one_that_fails_says_why():
  clock = gpu_speed.Clock(minutes=1)
  with worker(clock) as ours, worker(clock, WORKER.replace("'train'", "'t'")) as peer:
    assert ours.answer() == peer.answer() == {'version': 'none'}
    sides, args = {'ours': ours, 'eager': peer}, arguments('--visits=3')
    row = gpu_speed.measured({'case': 'x'}, sides, 'train {n}', args, clock)
  assert row == {'case': 'x', 'ours_s': 0.25, 'eager_failed': "KeyError: 'train'"}


def test_a_worker_that_is_silent_ends_with_the_time():
  silent = worker(gpu_speed.Clock(minutes=0), 'import time; time.sleep(60)')
  with silent, pytest.raises(gpu_speed.FailedError, match='out of time'):
    silent.answer()


def test_a_rows_throughput_mfu_and_ratio():
  row = {'ours_s': 0.5, 'eager_s': 2.0, 'compiled_s': 1.0, 'dtype': 'bfloat16'}
  row['predicted'] = {'peak_flops': 1e14}
  gpu_speed.finish(row, images=64, flop=2e13)
  assert (row['images_per_s'], row['tflops']) == (128, 40)
  assert row['mfu'] == pytest.approx(0.4)
  assert row['ratio'] == 0.5  # to the faster of both
  failed = {'ours_failed': 'x'}
  gpu_speed.finish(failed, images=64, flop=2e13)
  assert failed == {'ours_failed': 'x'}


def test_a_later_run_adds_rows_and_replaces_those_that_it_could_measure():
  old = [{'case': 'a', 's': 1}, {'case': 'b', 'failed': 'out of time'}]
  new = [{'case': 'a', 'failed': 'out of memory'}, {'case': 'b', 's': 2}]
  assert gpu_speed.merged(old, new, ['case']) == [old[0], new[1]]


def test_each_part_survives_the_failure_of_another(tmp_path, monkeypatch, capsys):
  def fail(*_):
    raise ModuleNotFoundError("No module named 'grain'")

  row = {'case': 'biggan128-b256', 'what': 'train', 'dtype': 'bfloat16'}
  row |= {'ours_s': 0.25, 'predicted': {'gb': 2.5}, 'compiled_failed': 'no compiler'}
  monkeypatch.setattr(gpu_speed, 'check_numbers', fail)
  monkeypatch.setattr(gpu_speed, 'check_commands', fail)
  monkeypatch.setattr(gpu_speed, 'time_case', lambda *_: [row])
  monkeypatch.setattr(gpu_speed, 'has_torch', lambda python: False)
  gpu_speed.main(['--tiny', f'--out={tmp_path}'])
  saved = json.loads((tmp_path / 'results.json').read_text())
  assert saved['failed'].keys() == {'PyTorch', 'parity', 'commands'}
  assert saved['speed'] == [row] and saved['versions']['jax']
  table = (tmp_path / 'table.md').read_text()
  assert '| biggan128-b256 | train | bfloat16 | 250.0 |' in table
  assert "- parity: ModuleNotFoundError: No module named 'grain'" in table
  assert '- biggan128-b256, train, compiled: no compiler' in table
  assert 'parity: ModuleNotFoundError' in capsys.readouterr().out


@pytest.mark.parametrize('name', gpu_cases.CASES)
def test_the_cases_are_configs_of_the_published_sizes(name):
  from gan_jax.config import parse_config

  for tiny in (True, False):
    case = gpu_cases.CASES[name](tiny)
    config = parse_config(case['config'])
    assert config.gan.dtype == case['dtype']
    assert config.stages[-1].batch == case['batch']
    assert gpu_cases.flops(case)[0] > 0
  if name.startswith('biggan128'):
    assert case['nets']['g_widths'] == [1536, 1536, 768, 384, 192, 96]
    iteration, image = gpu_cases.flops(case)
    # 257 TFLOP/s were measured at 82.4 ms with a batch of 64.
    assert iteration / case['batch'] == pytest.approx(257e12 * 82.4e-3 / 64, rel=0.1)
    assert image > 1e10
  if '1024' in name:
    assert case['nets']['d_widths'][-1] == 16
