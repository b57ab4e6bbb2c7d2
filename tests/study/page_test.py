"""The page: its tables, answers and CSV files, of runs with a known law."""

import csv
import json
import urllib.parse

import pytest

from gan_jax.study import page, planning
from tests.report.pages import HOSTILE, page_data
from tests.study.studies import CONFIG, described, falling, noise_lines, write_run

IMAGES = 6400


@pytest.fixture(scope='module')
def written(tmp_path_factory):
  """A study whose runs need 500 (1 + B / 24) images, with rates as sqrt(B)."""
  folder = tmp_path_factory.mktemp('study')
  flags = [CONFIG, f'--name={HOSTILE}', '--batches=8,16,32,64', '--lr_rules=sqrt']
  flags += ['--lr_factors=0.5,1,2', '--seeds=2', f'--images={IMAGES}']
  flags += ['--targets=1,0.0001', '--topologies=v5e:2x2,v5e:2x4']
  study, cells, faults = described(folder, *flags)
  assert not faults
  rows = []
  for cell in cells:
    off = round(cell.rate / (cell.batch / 8) ** 0.5, 3)  # the factor
    arrival = 500 * (1 + cell.batch / 24) * (1 if off == 1 else 1.5)
    arrival *= 1.02 if cell.seed else 1 / 1.02
    noise = noise_lines(range(100, IMAGES, 100), 30)
    lost = cell.batch == 64 and off == 2
    ended = f'stopped at image 9: {HOSTILE}' if lost else 'finished'
    scores = {} if lost else falling(arrival, IMAGES)
    more = {'collapsed': HOSTILE} if cell.batch == 32 and off == 2 else {}
    write_run(study, cell, scores, ended, noise, images_per_s=50.0, **more)
  for cell in cells[::3]:
    for chips, topology in ((4, 'v5e:2x2'), (8, 'v5e:2x4')):
      if cell.seed:
        continue
      step = (20 + cell.batch / chips) * 1e-3
      stage = {'res': 16, 'images_per_s': cell.batch / step, 'step_s': step}
      stage |= {'slowest_s': 2 * step, 'collectives_s': step, 'fits': True}
      row = {'setting': '', 'batch': cell.batch, 'topology': topology, 'chips': chips}
      row |= {**stage, 'stages': [stage], 'hbm_bytes': 3e9, 'mfu': 0.25}
      rows.append(row | planning.planned_hours(cell.config, row, IMAGES))
  planning.write_plan(folder, rows)
  page.write_page(study, cells)
  return study, cells, page_data((folder / 'report.html').read_text())


def table(folder, name):
  with (folder / 'tables' / f'{name}.csv').open() as file:
    return list(csv.DictReader(file))


def test_the_tables_hold_the_law(written):
  study, _, _ = written
  for row in table(study.folder, 'batches'):
    batch = int(row['batch'])
    assert float(row['images']) == pytest.approx(500 * (1 + batch / 24), rel=0.02)
    assert float(row['steps']) == pytest.approx(float(row['images']) / batch, abs=0.6)
    assert float(row['images low']) < float(row['images']) < float(row['images high'])
    assert float(row['best rate']) == pytest.approx((batch / 8) ** 0.5, rel=1e-4)
    assert (row['D noise scale'], row['G noise scale']) == ('30', '60')
  (row,) = table(study.folder, 'fits')  # nothing reaches the second target
  assert float(row['critical batch']) == pytest.approx(24, rel=0.05)
  assert float(row['critical low']) < 24 < float(row['critical high'])
  assert float(row['fewest steps']) == pytest.approx(500 / 24, abs=1.5)
  assert float(row['G noise / critical']) == pytest.approx(60 / 24, rel=0.05)


def test_rates_times_and_outcomes(written):
  study, cells, _ = written
  for row in table(study.folder, 'rates'):
    assert row['sqrt: images / best'] == '1'
    assert row['best rate'] == row['sqrt rule']
    if row['batch'] == '16':  # the constant rate 1 and the linear one 2 were not tried
      assert (row['constant rule'], row['linear rule']) == ('1', '2')
      assert row['constant: images / best'] == row['linear: images / best'] == ''
  times = table(study.folder, 'times')
  assert len(times) == 8
  for row in times:
    batch, chips = int(row['batch']), int(row['chips'])
    images = 500 * (1 + batch / 24)
    hours = images / batch * (20 + batch / chips) * 1e-3 / 3600
    assert float(row['hours']) == pytest.approx(hours, rel=0.02)
    assert float(row['hours, no overlap']) == pytest.approx(2 * hours, rel=0.02)
    assert float(row['chip-hours']) == pytest.approx(chips * hours, rel=0.02)
  front = {(row['batch'], row['topology']) for row in times if row['Pareto'] == 'True'}
  assert ('64', 'v5e:2x4') in front and ('8', 'v5e:2x4') not in front
  outcomes = {(r['batch'], r['rate']): r for r in table(study.folder, 'outcomes')}
  lost = outcomes['64', '5.65685']
  assert (lost['runs'], lost['diverged'], lost['share']) == ('2', '2', '1')
  assert outcomes['32', '4']['collapsed'] == '2'
  assert outcomes['8', '1']['share'] == '0'
  assert {row['images/s'] for row in table(study.folder, 'cells')} == {'50'}
  assert len(table(study.folder, 'cells')) == len(cells) == 24


def test_the_answers_say_it_in_words(written):
  text = '\n'.join(written[2]['answers'])
  for words in (
    'fd_small 1: batch 8 needs the fewest images, 66',
    'the critical batch is 2',
    'noise scale of D is 30 on average, 1.2',
    'within a factor of two',
    'noise scale of G is 60 on average, 2.',
    'not within a factor of two',
    'to the power of 0.5, closest to the rule sqrt',
    'fastest is batch 64 on v5e:2x4',
    'no batch reaches fd_small 0.0001 yet',
    'Of 24 runs that ended, 2 diverged, and the collapse monitor spoke in 2',
  ):
    assert words in text, text


def test_a_batch_that_does_not_arrive_is_named(tmp_path):
  flags = (CONFIG, '--batches=8,16,32,64,128', '--targets=1', f'--images={IMAGES}')
  study, cells, faults = described(tmp_path, *flags)
  assert not faults
  for cell in cells:
    law = 500 * (1 + cell.batch / 24)
    arrival = law if cell.batch < 64 else 2 * IMAGES
    write_run(study, cell, falling(arrival, IMAGES))
  text = '\n'.join(page_data(page.write_page(study, cells).read_text())['answers'])
  assert 'fd_small 1: at batch 64, 128 no learning rate gets there' in text, text
  assert 'the critical batch is 24' in text
  assert 'to the power of 0, closest to the rule constant' in text
  assert [row['batch'] for row in table(tmp_path, 'batches')] == ['8', '16', '32']


def test_the_page_holds_text_as_text_and_links_to_runs(written):
  study, cells, data = written
  text = (study.folder / 'report.html').read_text()
  assert data['title'] == HOSTILE and '<img' not in text
  assert text.count('</script>') == 3
  (section,) = [s for s in data['sections'] if s['title'] == 'Cells']
  links = [row[1] for row in section['tables'][0]['rows']]
  for cell, link in zip(cells, links, strict=True):
    target = study.folder / urllib.parse.unquote(link['href'])
    assert target.parent == cell.workdir(study.folder) and link['text'] == cell.name
  shown = {chart['title'] for s in data['sections'] for chart in s['charts']}
  assert {'Images to the target', 'Steps to the target', 'Time against cost'} <= shown


def test_a_study_that_has_not_begun_has_a_page(tmp_path):
  study, cells, _ = described(tmp_path, CONFIG, '--batches=8,16')
  (tmp_path / 'tables').mkdir()
  (tmp_path / 'tables' / 'batches.csv').write_text('of an earlier page')
  data = page_data(page.write_page(study, cells).read_text())
  assert data['done'] == 0 and data['answers'][0].startswith('2 of 2 cells have not')
  assert [s['title'] for s in data['sections'] if s['tables']] == [
    'Reliability',
    'Cells',
  ]
  assert not (tmp_path / 'tables' / 'batches.csv').exists()


def test_settings_are_compared_in_pairs_of_one_seed(tmp_path):
  flags = (CONFIG, '--seeds=4', '--sweep=train.accum=1,2', '--images=320')
  study, cells, faults = described(tmp_path, *flags)
  assert not faults
  last = {1: (1.0, 2.0, 3.0, 9.0), 2: (1.5, 2.5, 4.1)}  # the fourth is not finished
  for cell in cells:
    scores = last[cell.config.train.accum]
    if cell.seed < len(scores):
      write_run(study, cell, {160: 7.0, 320: scores[cell.seed]})
  data = page_data(page.write_page(study, cells).read_text())
  (row,) = table(tmp_path, 'settings')
  assert (row['setting'], row['against']) == ('train.accum=2', 'train.accum=1')
  assert (row['pairs'], row['difference'], row['fd_small against']) == ('3', '0.7', '2')
  # mean 0.7, standard error 0.2, t(0.975, 2) = 4.303
  assert float(row['difference low']) == pytest.approx(0.7 - 0.8605, abs=1e-3)
  assert float(row['difference high']) == pytest.approx(0.7 + 0.8605, abs=1e-3)
  assert (
    'train.accum=2 against train.accum=1: fd_small +0.7 on average over 3 pairs of '
    'runs (95%: -0.161 to +1.56): no difference is shown.'
  ) in data['answers']


def test_truncation_sweeps_are_summed_up(tmp_path):
  flags = (CONFIG, '--seeds=3', '--truncations=2,1', '--images=320')
  study, cells, faults = described(tmp_path, *flags)
  for cell, precision in zip(cells, (0.9, 0.8, 0.5), strict=True):
    workdir = write_run(study, cell, {320: 1.0})
    (workdir / 'frontier.csv').write_text(
      'truncation,ema,fd_small,precision_small\n'
      f'2.0,True,3.0,0.7\n1.0,True,2.0,{precision}\n2.0,False,9,0\n1.0,False,9,1\n'
    )
  page.write_page(study, cells)
  (row,) = table(tmp_path, 'truncation')
  assert (row['runs'], row['amenable']) == ('3', '2')
  assert float(row['rate low']) == pytest.approx(0.2077, abs=1e-3)
  assert len(table(tmp_path, 'frontier')) == 6
  data = page_data((tmp_path / 'report.html').read_text())
  (section,) = [s for s in data['sections'] if s['title'] == 'Truncation']
  assert section['charts'][0]['title'] == 'precision_small by truncation'
  x, y = section['charts'][0]['data']
  assert x == [1, 2] and y == pytest.approx([2.2 / 3, 0.7], rel=1e-4)


def test_broken_files_of_a_run_are_tolerated(tmp_path):
  study, cells, _ = described(tmp_path, CONFIG, '--targets=1')
  workdir = write_run(study, cells[0], {8: 2.0, 16: 0.5})
  for name in ('evaluations.jsonl', 'metrics.jsonl', 'starts.jsonl'):
    with (workdir / name).open('a') as file:
      file.write(json.dumps({'images': 'x'}) + '\n{"images": 3, "val')
  (workdir / 'frontier.csv').write_text('truncation,ema\nx,True\n')
  (tmp_path / 'plan.json').write_text('[{"setting": 1}, 3]')
  page.write_page(study, cells)
  assert table(tmp_path, 'batches')[0]['images'] == '12'
