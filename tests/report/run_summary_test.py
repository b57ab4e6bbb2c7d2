"""What the report of a run says about it, from the files in its workdir."""

import json

import pytest

from gan_jax.report import html, run_summary
from tests.report.pages import HOSTILE, page_data, write_lines


def test_a_run_is_summarized(workdir):
  (run,) = page_data(html.render([workdir], workdir))['runs']
  facts = dict(run['facts'])
  assert facts['Model'] == 'stylegan, 8 pixels'
  assert facts['Data'] == f'{HOSTILE}: 1,906 images'
  assert facts['Devices'] == '4 x TPU v5 lite in 2 processes'
  assert facts['Images'] == '300 of 1,000' and facts['Images per second'] == '10'
  assert facts['Time left'] == '1 min'  # 700 images at 10 a second
  assert facts['Last checkpoint'].startswith('step 12, ')
  assert facts['Started'] == '2026-01-02 03:04'
  assert facts['Collapse monitor'] == '1 collapse detected'
  assert (run['done'], run['severity']) == (0.3, 'bad')
  assert run['caption'].endswith(f'one row per class: {HOSTILE}, dogs.')
  assert [(e['images'], e['kind']) for e in run['events']] == [
    (128, 'resumed'),
    (150, 'stage'),
    (250, 'collapse'),
  ]
  assert run['events'][0]['text'] == '2026-01-03 03:04, on 1 x unknown'
  assert '9.0 s' in run['events'][1]['text']
  assert [(s['images'], s['res']) for s in run['grids']] == [(100, 4), (200, 8)]
  # curves.png is left out: the report draws the curves itself.
  assert [p['title'] for p in run['images']] == [run_summary.CAPTIONS['data.png']]
  assert run['config']['train.images'] == '1000'


def test_images_that_are_not_square_have_two_sides(workdir):
  path = workdir / 'config.json'
  config = json.loads(path.read_text())
  config['model']['first_map'] = [3, 4]
  path.write_text(json.dumps(config))
  run = run_summary.summarize_run(workdir)
  assert dict(run['facts'])['Model'] == 'stylegan, 8 x 6 pixels'
  (stage,) = [event for event in run['events'] if event['kind'] == 'stage']
  assert stage['text'].startswith('8 x 6 pixels from here on')
  assert stage['label'] == '8 x 6'


def test_a_run_without_metrics_is_summarized(tmp_path):
  (tmp_path / 'config.json').write_text('{"train": {"images": 5}}')
  run = run_summary.summarize_run(tmp_path)
  facts = dict(run['facts'])
  assert facts['Collapse monitor'] == 'no metrics yet'
  assert facts['Time left'] == 'unknown' and facts['Last checkpoint'] == 'none yet'
  assert run['charts'] == [] and run['grids'] == [] and run['done'] == 0


def test_skipped_updates_and_the_newest_score_are_shown(workdir):
  write_lines(workdir / 'metrics.jsonl', [{'images': 1000, 'skipped': 2.0}])
  stamp = {'n': 64, 'data': 'digits', 'truncation': 0.5, 'psi': 1}
  write_lines(
    workdir / 'evaluations.jsonl',
    [
      {'images': 500, 'metric': 'fid', 'value': 9.0, 'stamp': stamp},
      {'images': 1000, 'metric': 'fid', 'value': float('nan'), 'stamp': stamp},
      {'images': 1000, 'metric': 'kid', 'value': 0.12345, 'stamp': {'n': 8}},
    ],
  )
  run = run_summary.summarize_run(workdir)
  facts = dict(run['facts'])
  assert facts['Collapse monitor'] == (
    'no collapse detected; non-finite updates skipped: 2 in the logged records'
  )
  assert (run['status'], run['severity']) == ('finished', 'good')
  assert 'Time left' not in facts
  assert run['scores'] == [
    ('fid', 'not a number', '1,000', '64 images of digits, truncation 0.5'),
    ('kid', '0.1235', '1,000', '8 images of None'),
  ]


def test_a_line_that_a_kill_cut_off_is_left_out(workdir):
  complete = run_summary.summarize_run(workdir)
  path = workdir / 'metrics.jsonl'
  path.write_text(path.read_text() + '{"images": 400, "d_real": 3')
  assert run_summary.summarize_run(workdir) == complete
  path.write_bytes(path.read_bytes() + b'\xff\xfe\n[1]\n{"images": "x"}\n{"a": 1}\n')
  assert run_summary.summarize_run(workdir) == complete


@pytest.mark.parametrize(
  'name', ['run.json', 'starts.jsonl', 'rollbacks.jsonl', 'evaluations.jsonl']
)
@pytest.mark.parametrize('content', ['', '{', '[]', '{"images": 1e999}', '[' * 99_999])
def test_unexpected_contents_of_files_are_tolerated(workdir, name, content):
  (workdir / name).write_text(content)
  assert page_data(html.render([workdir], workdir))['runs'][0]['done'] == 0.3


def test_rollbacks_are_events(workdir):
  record = {'images': 280, 'to_step': 12, 'collapsed': 'diversity'}
  (workdir / 'rollbacks.jsonl').write_text(json.dumps(record))
  run = run_summary.summarize_run(workdir)
  assert run['events'][-1]['text'] == 'back to step 12: diversity'
  assert run['severity'] == ''  # training went on after the collapse


def test_waits_for_data_are_shares_of_the_steps(workdir):
  waits = lambda: run_summary.data_waits(
    run_summary.read_json_lines(workdir / 'metrics.jsonl')
  )
  assert waits() == 'not measured yet'
  lines = [{'images': 8, 'step_s': 0.5, 'data_wait_s': 0.25}] * 3
  write_lines(workdir / 'metrics.jsonl', lines)
  assert waits() == '50% of the time'
  job = {'images': 8, 'step_s': 2.0, 'data_wait_s': 1.5}
  job['data_wait_s_by_process'] = [0.02, None, 1.5, 0.02]
  write_lines(workdir / 'metrics.jsonl', [*lines, {'images': 9, 'step_s': 'x'}, job])
  assert waits() == '1% of the time; process 2: 75%'
