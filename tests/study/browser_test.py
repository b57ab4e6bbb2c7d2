"""The page of a study in a real browser: make test-browser."""

import pytest

from gan_jax.study import page
from tests.study.studies import CONFIG, described, falling, noise_lines, write_run

pytestmark = pytest.mark.browser
HOSTILE = '</script><img src=x onerror=alert(1)>'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A study of 18 runs; each has a report that says its name."""
  folder = tmp_path_factory.mktemp('study')
  flags = [CONFIG, f'--name={HOSTILE}', '--batches=8,16,64', '--lr_factors=0.5,1,2']
  flags += ['--seeds=2', '--images=3200', '--targets=1']
  study, cells, _ = described(folder, *flags)
  for cell in cells:
    arrival = 200 * (1 + cell.batch / 20) * (1 + 0.1 * cell.rate + 0.03 * cell.seed)
    noise = noise_lines(range(100, 3200, 100), 30)
    scores = falling(arrival, 3200)
    workdir = write_run(study, cell, scores, noise=noise, collapsed=HOSTILE)
    (workdir / 'report.html').write_text(f'<h1>{cell.name}</h1>')
  page.write_page(study, cells)
  return folder


def test_the_page_opens_from_disk_and_leads_to_the_runs(folder, new_tab):
  tab = new_tab()
  shown, address = tab.page, f'file://{folder}/report.html'
  shown.goto(address)
  assert shown.inner_text('h1') == HOSTILE
  assert shown.locator('img[src="x"]').count() == 0
  assert shown.inner_text('.status') == 'all cells have ended'
  assert shown.locator('.chart canvas').count() == 7
  assert 'critical batch is' in shown.inner_text('section[aria-label="Answers"]')
  assert tab.requested_urls() == [address] and not tab.complaints
  links = shown.locator('section[aria-label="Cells"] td a')
  assert links.count() == 18
  name = links.nth(4).inner_text()
  links.nth(4).click()
  shown.wait_for_url(f'file://{folder}/cells/{name}/report.html')
  assert shown.inner_text('h1') == name
  shown.goto(address)
  with shown.expect_download() as download:
    shown.click('section[aria-label="Cells"] h3 a')
  assert download.value.suggested_filename == 'cells.csv'
  assert not tab.complaints


def test_logarithmic_axes_take_any_range(folder, new_tab):
  tab = new_tab()
  tab.page.goto(f'file://{folder}/report.html')
  for low, high in ((0.125, 11.314), (8, 128), (0.9, 1.1), (3, 3), (1e-7, 1e6)):
    chart = {'title': 'a', 'xLabel': 'x', 'yLabel': 'y', 'logX': True, 'logY': True}
    chart |= {'names': ['b'], 'colors': [0], 'lines': [True], 'ends': [[]]}
    chart |= {'data': [[8.0, 128.0], [low, high]]}
    found = tab.page.evaluate(
      """async (chart) => {
        const u = drawChart(chart, document.querySelector('.chart'));
        await new Promise(requestAnimationFrame);
        return u.axes.map((axis) => axis._splits);
      }""",
      chart,
    )
    assert found[0] == [10, 20, 50, 100]
    ticks = found[1]
    assert 1 <= len(ticks) <= 14, ticks
    assert all(low / 7 <= tick <= high * 7 for tick in ticks)
  assert not tab.complaints


def test_a_table_is_sorted_by_its_heads(folder, new_tab):
  tab = new_tab()
  tab.page.goto(f'file://{folder}/report.html')
  section = tab.page.locator('section[aria-label="Cells"]')
  column = lambda i: section.locator(f'tbody td:nth-child({i})').all_inner_texts()
  head = section.locator('th', has_text='batch')
  head.locator('button').click()
  assert column(4) == ['8'] * 6 + ['16'] * 6 + ['64'] * 6
  assert head.get_attribute('aria-sort') == 'ascending'
  head.locator('button').press('Enter')
  assert column(4)[0] == '64' and head.get_attribute('aria-sort') == 'descending'
  section.locator('th', has_text='index').locator('button').click()
  assert column(1) == [str(i) for i in range(18)]  # as numbers
  assert head.get_attribute('aria-sort') == 'none' and not tab.complaints


def test_values_are_shown_by_mouse_and_by_key(folder, new_tab):
  tab = new_tab()
  tab.page.goto(f'file://{folder}/report.html')
  chart = tab.page.locator('.chart').first
  value = lambda: chart.locator('.u-value').first.inner_text()
  assert value() == '–'
  chart.focus()
  tab.page.keyboard.press('ArrowRight')
  assert value() == '4'  # the fit begins at half the smallest batch
  over = chart.locator('.u-over')
  over.scroll_into_view_if_needed()
  box = over.bounding_box()
  tab.page.mouse.move(box['x'] + 0.5 * box['width'], box['y'] + 0.5 * box['height'])
  tab.page.wait_for_function(
    "!['–', '4'].includes(document.querySelector('.u-value').textContent)"
  )
  assert not tab.complaints


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_a_phone_shows_all_of_it(folder, new_tab, scheme):
  tab = new_tab(viewport={'width': 390, 'height': 844}, color_scheme=scheme)
  tab.page.goto(f'file://{folder}/report.html')
  assert tab.page.evaluate('document.documentElement.scrollWidth') == 390
  assert not tab.complaints
