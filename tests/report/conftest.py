"""A small run, written by hand."""

import json

import pytest

from tests.report.pages import HOSTILE, write_image, write_lines


@pytest.fixture
def workdir(tmp_path):
  """A run at image 300 of 1000: two sample grids, a stage, a restart and a collapse."""
  folder = tmp_path / 'a run'
  folder.mkdir()
  config = {
    'model': {'family': 'stylegan', 'res': 8, 'n_classes': 2},
    'data': {'name': HOSTILE},
    'train': {'images': 1000},
    'log': {'grid_rows': 2},
  }
  (folder / 'config.json').write_text(json.dumps(config))
  run_info = {
    'started': '2026-01-02T03:04:05+0000',
    'devices': 4,
    'device_kind': 'TPU v5 lite',
    'processes': 2,
    'dataset': {'images': 1906, 'classes': [HOSTILE, 'dogs']},
  }
  (folder / 'run.json').write_text(json.dumps(run_info))
  step = {'d_real': 1.0, 'd_fake': -1.0, 'images_per_s': 10.0, 'skipped': 0.0}
  write_lines(
    folder / 'metrics.jsonl',
    [
      {'images': 100, 'res': 4, 'alpha': 1.0, 'g_loss': 0.123456789} | step,
      {'images': 150, 'res': 8, 'change_s': 2.5, 'open_s': 1.0, 'compile_s': 9.0},
      {'images': 200, 'res': 8, 'alpha': 0.5, 'g_loss': float('nan')} | step,
      {'images': 200, 'step': 2, 'diversity': 0.5},
      {'images': 300, 'res': 8, 'alpha': 1.0, 'g_loss': 2.0} | step,
      {'images': 300, 'eval/fd_small': 7.5},
      {'images': 250, 'collapsed': 'diversity 0.001, best 0.5'},
    ],
  )
  write_lines(
    folder / 'starts.jsonl',
    [
      {'images': 0, 'started': '2026-01-02T03:04:05+0000', 'devices': 4},
      {'images': 128, 'started': '2026-01-03T03:04:05+0000', 'devices': 1},
    ],
  )
  (folder / 'checkpoints' / '12').mkdir(parents=True)
  write_image(folder / 'samples' / '0000000100.png', value=10)
  write_image(folder / 'samples' / '0000000200.png', value=20)
  write_image(folder / 'data.png')
  write_image(folder / 'curves.png')
  return folder
