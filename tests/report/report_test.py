"""The page of a run: what it says and leaves out, and what it cannot be made to do."""

import base64
import json
import re

import numpy as np
import pytest
from PIL import Image

from gan_jax import UserError, report
from gan_jax.report import __main__ as command
from gan_jax.report import html, run_summary

HOSTILE = '</script><img src=x onerror=alert(1)><!--&'


def picture(path, side=8, value=0):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.full((side, side, 3), value, np.uint8)).save(path)


def write_lines(path, lines):
  path.write_text(''.join(json.dumps(line) + '\n' for line in lines))


@pytest.fixture
def workdir(tmp_path):
  """A run at image 300 of 1000, with two sheets, a stage, a restart and a collapse."""
  folder = tmp_path / 'a run'
  folder.mkdir()
  config = {
    'model': {'family': 'stylegan', 'res': 8, 'n_classes': 2},
    'data': {'name': HOSTILE},
    'train': {'images': 1000},
    'log': {'sheet_rows': 2},
  }
  (folder / 'config.json').write_text(json.dumps(config))
  about = {
    'started': '2026-01-02T03:04:05+0000',
    'devices': 4,
    'device_kind': 'TPU v5 lite',
    'processes': 2,
    'dataset': {'images': 1906, 'classes': [HOSTILE, 'dogs']},
  }
  (folder / 'run.json').write_text(json.dumps(about))
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
      {'images': 250, 'collapsed': 'pictures vary by 0.001, once by 0.5'},
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
  picture(folder / 'sheets' / '0000000100.png', value=10)
  picture(folder / 'sheets' / '0000000200.png', value=20)
  picture(folder / 'data.png')
  picture(folder / 'watch.png')
  return folder


def told(text):
  """The JSON in a page."""
  (found,) = re.findall(r'id="story">(.*?)</script>', text, re.DOTALL)
  return json.loads(found)


def test_a_run_tells_its_story(workdir):
  (run,) = told(html.render([workdir], workdir))['runs']
  facts = dict(run['facts'])
  assert facts['Model'] == 'stylegan at 8 pixels'
  assert facts['Data'] == f'{HOSTILE}: 1,906 images'
  assert facts['Devices'] == '4 x TPU v5 lite in 2 processes'
  assert facts['Images'] == '300 of 1,000' and facts['Images a second'] == '10'
  assert facts['Time left'] == '1 min'  # 700 images at 10 a second
  assert facts['Last checkpoint'].startswith('step 12, ')
  assert facts['Started'] == '2026-01-02 03:04'
  assert facts['Watch'] == '1 collapse seen'
  assert (run['done'], run['mood']) == (0.3, 'bad')
  assert run['caption'].endswith(f'a row for each class: {HOSTILE}, dogs.')
  assert [(e['images'], e['kind']) for e in run['events']] == [
    (128, 'resumed'),
    (150, 'stage'),
    (250, 'collapse'),
  ]
  assert run['events'][0]['text'] == '2026-01-03 03:04, on 1 x unknown'
  assert '9.0 s' in run['events'][1]['text']
  assert [(s['images'], s['res']) for s in run['sheets']] == [(100, 4), (200, 8)]
  assert [p['title'] for p in run['pictures']] == [run_summary.TITLES['data.png']]


def test_series_are_grouped_and_what_is_not_finite_is_left_out(workdir):
  (run,) = told(html.render([workdir], workdir))['runs']
  charts = {chart['title']: chart for chart in run['charts']}
  assert charts["D's scores"]['names'] == ['d_real', 'd_fake']
  assert charts['Losses']['x'] == [100, 300]
  assert charts['Losses']['y'] == [[0.12346, 2.0]]
  assert charts['Resolution']['y'] == [[4.0, 8.0, 8.0, 8.0]]
  assert charts['Fréchet distance']['names'] == ['eval/fd_small']
  assert 'Updates skipped' not in charts  # all zero
  names = [name for chart in run['charts'] for name in chart['names']]
  assert not run_summary.NO_SERIES & set(names)


def test_the_gradient_noise_scale_has_a_chart(workdir):
  lines = [
    {'images': 100 * i, 'd_real': 0.5, 'noise_scale': scale}
    for i, scale in enumerate((40.0, 3e5, float('inf')), 1)
  ]
  noise = lambda: next(
    chart
    for chart in run_summary.summarize_run(workdir)['charts']
    if chart['title'] == 'Gradient noise scale'
  )
  write_lines(workdir / 'metrics.jsonl', lines)
  chart = noise()
  assert chart['names'] == ['noise_scale'] and chart['log']
  assert (chart['x'], chart['y']) == ([100, 200], [[40.0, 3e5]])
  write_lines(workdir / 'metrics.jsonl', [*lines, {'images': 400, 'noise_scale': -2.0}])
  assert not noise()['log']  # an estimate below 0 has no logarithm


def test_a_line_that_was_cut_by_a_kill_is_left_out(workdir):
  whole = run_summary.summarize_run(workdir)
  path = workdir / 'metrics.jsonl'
  path.write_text(path.read_text() + '{"images": 400, "d_real": 3')
  assert run_summary.summarize_run(workdir) == whole
  path.write_bytes(path.read_bytes() + b'\xff\xfe\n[1]\n{"images": "x"}\n{"a": 1}\n')
  assert run_summary.summarize_run(workdir) == whole


@pytest.mark.parametrize(
  'name', ['run.json', 'starts.jsonl', 'rollbacks.jsonl', 'evaluations.jsonl']
)
@pytest.mark.parametrize('content', ['', '{', '[]', '{"images": 1e999}', '[' * 99_999])
def test_files_that_hold_something_else(workdir, name, content):
  (workdir / name).write_text(content)
  assert told(html.render([workdir], workdir))['runs'][0]['done'] == 0.3


def test_long_runs_keep_their_extremes(workdir):
  n = 100_000
  values = np.sin(np.arange(n) / 5000)
  values[77_777], values[5] = 9, -9
  write_lines(
    workdir / 'metrics.jsonl',
    [
      {'images': 32 * (i + 1), 'd_real': float(x), 'g_loss': 1 / (i + 1)}
      for i, x in enumerate(values)
    ],
  )
  text = html.render([workdir], workdir)
  (run,) = told(text)['runs']
  scores, losses = run['charts']
  assert len(scores['x']) == run_summary.POINTS == len(scores['y'][0])
  assert (scores['x'][0], scores['x'][-1]) == (32, 32 * n)
  assert (max(scores['y'][0]), min(scores['y'][0])) == (9, -9)
  assert losses['y'][0] == sorted(losses['y'][0], reverse=True)  # falling stays falling
  assert told(text)['thinned']
  assert len(text) < 300_000


def test_series_of_other_places_share_a_chart():
  x = list(range(5000))
  curves = [{at: float(at) for at in x}, {2500: 1.0}]
  places, (dense, sparse) = run_summary.thin(x, curves)
  assert places == sorted(places)
  assert all(abs(at - value) < 10 for at, value in zip(places, dense))
  kept = [(at, value) for at, value in zip(places, sparse) if value is not None]
  assert {value for _, value in kept} == {1.0}
  assert all(abs(at - 2500) < 10 for at, _ in kept)


def test_no_text_of_a_run_becomes_markup(workdir):
  evil = workdir.with_name('<img src=x onerror=alert(1)>')
  workdir.rename(evil)
  text = html.render([evil], evil)
  assert told(text)['runs'][0]['name'] == evil.name
  assert '<img' not in text and text.count('</script>') == 3
  assert '&lt;img src=x onerror=alert(1)&gt;' in text  # the title
  (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
  assert "default-src 'none'" in policy and 'http' not in policy
  scripts = re.findall(r'<script>(.*?)</script>', text, re.DOTALL)
  for script in scripts:
    assert f"'sha256-{html.digest(script)}'" in policy
  assert len(scripts) == 2


def test_pictures_are_inside_as_far_as_there_is_room(workdir):
  (run,) = told(html.render([workdir], workdir))['runs']
  sheet = (workdir / 'sheets' / '0000000200.png').read_bytes()
  kind, _, body = run['sheets'][1]['src'].partition(',')
  assert kind == 'data:image/png;base64' and base64.b64decode(body) == sheet
  linked = html.ReportImages(workdir, 0).fill(
    run_summary.summarize_run(workdir)['sheets'], 10**9
  )
  assert [s['src'] for s in linked] == [
    'sheets/0000000100.png',
    'sheets/0000000200.png',
  ]
  assert (
    html.ReportImages(None, 0).fill(run_summary.summarize_run(workdir)['sheets'], 10**9)
    == []
  )


def test_names_of_files_are_no_addresses(tmp_path):
  picture(tmp_path / 'a#b?c%d.png')
  (entry,) = html.ReportImages(tmp_path, 0).fill([{'src': tmp_path / 'a#b?c%d.png'}], 9)
  assert entry['src'] == 'a%23b%3Fc%25d.png'


def test_large_pictures_are_made_smaller_to_be_mailed(tmp_path):
  noise = np.random.default_rng(0).integers(0, 255, (1500, 3000, 3), np.uint8)
  Image.fromarray(noise).save(tmp_path / 'x.png')
  (entry,) = html.ReportImages(None).fill([{'src': tmp_path / 'x.png'}], 2_000_000)
  kind, _, body = entry['src'].partition(',')
  (tmp_path / 'y.webp').write_bytes(base64.b64decode(body))
  with Image.open(tmp_path / 'y.webp') as small:
    assert kind == 'data:image/webp;base64' and small.size == (1280, 640)
  (tmp_path / 'x.png').write_bytes(b'no picture' * 300_000)
  assert html.ReportImages(None).source(tmp_path / 'x.png', 2_000_000) is None


@pytest.mark.parametrize('n', [0, 1, 2, 7, 100])
def test_the_first_few_pictures_lie_evenly(n):
  order = html.spread(n)
  assert sorted(order) == list(range(n))
  if n == 100:
    assert order[:2] == [99, 0]
    gaps = np.diff(sorted(order[:10]))
    assert gaps.max() <= 2 * np.median(gaps)


def test_several_runs_lie_side_by_side(workdir, tmp_path, capsys):
  other = tmp_path / 'deeper' / 'a run'
  other.mkdir(parents=True)
  (other / 'config.json').write_text('{"train": {"images": 5}}')
  out = tmp_path / 'both.html'
  command.main([str(workdir), str(other), f'--out={out}'])
  assert str(out) in capsys.readouterr().out
  first, second = told(out.read_text())['runs']
  assert second['name'] == 'deeper/a run' and first['name'].endswith('/a run')
  assert first['config']['train.images'] == '1000'
  assert second['config'] == {'train.images': '5'} and second['sheets'] == []


def test_the_page_replaces_the_one_before(workdir):
  (workdir / 'report.html').write_text('before')
  assert report.write([workdir]) == workdir / 'report.html'
  assert told((workdir / 'report.html').read_text())
  assert not list(workdir.glob('.*'))


def test_a_writer_makes_the_page_and_tells_once_of_trouble(workdir):
  said = []
  writer = report.ReportWriter(workdir, True, said.append)
  writer.refresh()
  writer.finish()
  assert told((workdir / 'report.html').read_text()) and not said
  (workdir / 'config.json').unlink()
  writer.finish()
  writer.finish()
  assert len(said) == 1 and 'is not the folder of a run' in said[0]


def test_only_one_process_of_a_job_writes(workdir):
  writer = report.ReportWriter(workdir, False, print)
  writer.refresh()
  writer.finish()
  assert not (workdir / 'report.html').exists()


def test_mistakes(tmp_path, workdir):
  with pytest.raises(UserError, match='not the folder of a run'):
    command.main([str(tmp_path / 'none')])
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match='cannot be written'):
    command.main([str(workdir), f'--out={tmp_path}/file/page.html'])
