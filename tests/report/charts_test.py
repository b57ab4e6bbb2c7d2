"""The charts of a report: grouping of metrics and thinning of long curves."""

import numpy as np

from gan_jax.report import charts, html
from tests.report.pages import page_data, write_lines


def test_metrics_are_grouped_and_non_finite_values_left_out(workdir):
  (run,) = page_data(html.render([workdir], workdir))['runs']
  by_title = {chart['title']: chart for chart in run['charts']}
  assert by_title["D's scores"]['names'] == ['d_real', 'd_fake']
  assert by_title['Losses']['x'] == [100, 300]
  assert by_title['Losses']['y'] == [[0.12346, 2.0]]
  assert by_title['Resolution']['y'] == [[4.0, 8.0, 8.0, 8.0]]
  assert by_title['Fréchet distance']['names'] == ['eval/fd_small']
  assert 'Skipped updates' not in by_title  # all zero
  names = [name for chart in run['charts'] for name in chart['names']]
  assert not charts.NOT_CHARTED & set(names)


def test_the_gradient_noise_scale_has_a_chart():
  records = [
    {'images': 100 * i, 'd_real': 0.5, 'noise_scale': scale}
    for i, scale in enumerate((40.0, 3e5, float('inf')), 1)
  ]

  def noise_chart(records):
    (chart,) = (
      chart
      for chart in charts.make_charts(records)
      if chart['title'] == 'Gradient noise scale'
    )
    return chart

  chart = noise_chart(records)
  assert chart['names'] == ['noise_scale'] and chart['log']
  assert (chart['x'], chart['y']) == ([100, 200], [[40.0, 3e5]])
  # A negative estimate has no logarithm.
  assert not noise_chart([*records, {'images': 400, 'noise_scale': -2.0}])['log']


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
  (run,) = page_data(text)['runs']
  scores, losses = run['charts']
  assert len(scores['x']) == charts.MAX_POINTS == len(scores['y'][0])
  assert (scores['x'][0], scores['x'][-1]) == (32, 32 * n)
  assert (max(scores['y'][0]), min(scores['y'][0])) == (9, -9)
  assert losses['y'][0] == sorted(losses['y'][0], reverse=True)  # falling stays falling
  assert page_data(text)['thinned']
  assert len(text) < 300_000


def test_curves_at_different_positions_share_a_chart():
  x = list(range(5000))
  curves = [{at: float(at) for at in x}, {2500: 1.0}]
  positions, (dense, sparse) = charts.thin_curves(x, curves)
  assert positions == sorted(positions)
  assert all(abs(at - value) < 10 for at, value in zip(positions, dense, strict=True))
  points = zip(positions, sparse, strict=True)
  kept = [(at, value) for at, value in points if value is not None]
  assert {value for _, value in kept} == {1.0}
  assert all(abs(at - 2500) < 10 for at, _ in kept)


def test_scores_of_a_kind_share_a_panel():
  names = 'prd_f8', 'recall_small', 'memorization_pixels', 'separability_w', 'is'
  records = [{'images': 1, **{f'eval/{name}': 0.5 for name in names}}]
  assert [chart['title'] for chart in charts.make_charts(records)] == [
    'Precision and recall',
    'Memorization',
    'Linear separability',
    'Other scores',
  ]
