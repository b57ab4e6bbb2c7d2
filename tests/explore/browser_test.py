"""The pages in a real browser: make test-browser (Chromium, driven by Playwright)."""

import base64
import http.client
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gan_jax import report, sample
from tests import runs

pytestmark = pytest.mark.browser
ROOT = Path(__file__).parents[2]
HOSTILE = '</script><img src=x onerror=alert(1)>'


@pytest.fixture(scope='module')
def finished_runs(tmp_path_factory):
  """A finished run of four sample grids, and another one."""
  folder = tmp_path_factory.mktemp('runs')
  often = dict(log__metrics_every=8, log__grid_every=8)
  for name, seed in (('first', 0), ('second', 1)):
    changes = dict(train__images=32, train__seed=seed, **often)
    runs.train(runs.tiny_config('biggan_digits', **changes), folder / name)
  return folder / 'first', folder / 'second'


def shown_pixels(page):
  """Pixels of the displayed sample grid, as the browser decoded it."""
  page.wait_for_function(
    "(() => { const i = document.querySelector('figure img'); "
    'return i.complete && i.naturalWidth > 0 })()'
  )
  return page.evaluate(
    "(() => { const i = document.querySelector('figure img'), "
    "c = document.createElement('canvas'); c.width = i.naturalWidth; "
    "c.height = i.naturalHeight; c.getContext('2d').drawImage(i, 0, 0); "
    'return c.toDataURL() })()'
  )


def test_a_report_opens_from_disk(finished_runs, new_tab):
  tab = new_tab()
  page, address = tab.page, f'file://{finished_runs[0]}/report.html'
  page.goto(address)
  assert page.inner_text('h1') == 'first' and page.inner_text('.status') == 'finished'
  assert page.locator('.chart canvas').count() >= 5
  last = shown_pixels(page)
  page.focus('#time')
  page.keyboard.press('Home')
  assert page.inner_text('#shown').startswith('image 8')
  assert shown_pixels(page) != last
  page.keyboard.press('End')
  assert page.inner_text('#shown').startswith('image 32')
  assert shown_pixels(page) == last
  assert not tab.complaints and tab.requested_urls() == [address]


def test_curves_are_read_and_zoomed_without_a_mouse(finished_runs, new_tab):
  tab = new_tab()
  page = tab.page
  page.goto(f'file://{finished_runs[0]}/report.html')
  ends = lambda: page.evaluate('drawn.map(({ u }) => [u.scales.x.min, u.scales.x.max])')
  full_range = ends()
  chart = page.locator('.chart').first
  chart.focus()
  page.keyboard.press('Home')
  page.wait_for_function("document.querySelector('.u-value').textContent === '8'")
  page.keyboard.press('+')
  page.wait_for_function('drawn.every(({ u }) => u.scales.x.max < 32)')
  page.keyboard.press('0')
  page.wait_for_function('drawn.every(({ u }) => u.scales.x.max === 32)')
  assert ends() == full_range and not tab.complaints


def test_a_curve_is_zoomed_by_dragging(finished_runs, new_tab):
  page = new_tab().page
  page.goto(f'file://{finished_runs[0]}/report.html')
  over = page.locator('.u-over').first
  over.scroll_into_view_if_needed()
  box = over.bounding_box()
  y = box['y'] + box['height'] / 2
  page.mouse.move(box['x'] + 0.2 * box['width'], y)
  page.mouse.down()
  page.mouse.move(box['x'] + 0.6 * box['width'], y, steps=4)
  page.mouse.up()
  page.wait_for_function(
    'drawn.every(({ u }) => u.scales.x.min > 8 && u.scales.x.max < 32)'
  )


def test_two_runs_compare(finished_runs, new_tab, tmp_path):
  out = report.write_report(list(finished_runs), tmp_path / 'compare.html')
  tab = new_tab()
  page = tab.page
  page.goto(f'file://{out}')
  assert page.locator('.timeline input').count() == 1
  assert page.locator('figure.sample-grid img').count() == 2
  titles = page.locator('.chart').first.locator('.u-label').all_inner_texts()
  assert [title.strip() for title in titles] == ['image', 'first', 'second']
  table = page.locator('section[aria-label="Config differences"]').inner_text()
  assert 'train.seed' in table and 'train.images' not in table
  sources = lambda: page.locator('figure.sample-grid img').evaluate_all(
    'images => images.map((i) => i.src)'
  )
  before = sources()
  page.focus('#time')
  page.keyboard.press('ArrowLeft')
  assert all(a != b for a, b in zip(before, sources(), strict=True))
  assert not tab.complaints and tab.requested_urls() == [f'file://{out}']


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_a_phone_shows_all_of_it(finished_runs, new_tab, scheme):
  tab = new_tab(viewport={'width': 390, 'height': 844}, color_scheme=scheme)
  page = tab.page
  page.goto(f'file://{finished_runs[0]}/report.html')
  assert page.evaluate('document.documentElement.scrollWidth') == 390
  color = page.evaluate('getComputedStyle(document.body).backgroundColor')
  dark = all(int(x) < 100 for x in color.removeprefix('rgb(').rstrip(')').split(','))
  assert dark == (scheme == 'dark') and not tab.complaints


def test_hostile_text_is_shown_as_text(finished_runs, new_tab, tmp_path):
  evil = tmp_path / '<img src=x onerror=alert(1)>'
  shutil.copytree(finished_runs[0], evil)
  about = json.loads((evil / 'run.json').read_text())
  about['dataset']['classes'][0] = HOSTILE
  (evil / 'run.json').write_text(json.dumps(about))
  with (evil / 'metrics.jsonl').open('a') as f:
    f.write(json.dumps({'images': 32, HOSTILE: 1.0, 'collapsed': HOSTILE}) + '\n')
    f.write('{"images": 40, "d_re')  # killed here
  report.write_report([evil])
  tab = new_tab()
  page = tab.page
  page.goto((evil / 'report.html').as_uri())
  page.wait_for_selector('.chart canvas')
  assert page.inner_text('h1') == evil.name
  text = page.inner_text('body')
  assert text.count(HOSTILE) >= 3  # of a class, a series and a verdict
  assert page.locator('img[src="x"]').count() == 0
  assert not tab.complaints


@pytest.fixture(scope='module')
def explorer(stylegan_run, tmp_path_factory):
  """A StyleGAN's workdir and the address of its explorer."""
  folder = tmp_path_factory.mktemp('style') / 'run'
  shutil.copytree(stylegan_run, folder)
  with socket.socket() as s:
    s.bind(('127.0.0.1', 0))
    port = s.getsockname()[1]
  env = {**os.environ, 'PYTHONUNBUFFERED': '1'}
  del env['PYTEST_CURRENT_TEST']  # or NiceGUI takes itself for the one under test
  process = subprocess.Popen(
    [sys.executable, '-m', 'gan_jax.explore', f'--workdir={folder}', f'--port={port}'],
    cwd=ROOT,
    env=env,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
  lines = []
  for line in process.stdout:
    lines.append(line)
    if 'ready' in line:
      break
  assert 'ready' in lines[-1], lines
  for _ in range(300):
    with socket.socket() as s:
      if not s.connect_ex(('127.0.0.1', port)):
        break
    assert process.poll() is None, process.communicate()
    time.sleep(0.1)
  yield folder, port
  process.terminate()
  process.communicate()


def image_source(page):
  return page.get_attribute('#image', 'src')


def changed_image(page, before):
  """Waits for a new image and for no more to come; its source."""
  page.wait_for_function(
    "before => document.querySelector('#image').src !== before", arg=before
  )
  now = None
  while now != image_source(page):
    now = image_source(page)
    page.wait_for_timeout(300)
  return now


def test_the_explorer_follows_its_controls(explorer, new_tab, monkeypatch):
  folder, port = explorer
  address = f'http://127.0.0.1:{port}'
  tab = new_tab()
  page = tab.page
  tab.context.grant_permissions(['clipboard-read', 'clipboard-write'], origin=address)
  page.goto(address)
  page.wait_for_function("document.querySelector('#image')?.src.startsWith('data:')")
  first = changed_image(page, '')

  page.locator('#psi').click(position={'x': 100, 'y': 10})
  truncated = changed_image(page, first)
  assert '--psi=' in page.inner_text('#command')

  page.get_by_role('button', name='Mix', exact=True).click()
  mixed = changed_image(page, truncated)
  page.get_by_text('middle', exact=True).click()
  finer = changed_image(page, mixed)
  assert '--mix_layers=coarse+middle' in page.inner_text('#command')

  page.click('#copy')
  page.get_by_text('copied').wait_for()
  line = page.evaluate('navigator.clipboard.readText()')
  assert line == page.inner_text('#command')
  words = shlex.split(line)
  sample.main(words[3:])
  (out,) = [word.removeprefix('--out=') for word in words if word.startswith('--out=')]
  assert base64.b64decode(finer.partition(',')[2]) == Path(out).read_bytes()
  assert Path(out).is_relative_to(folder)

  page.fill('#name', '../outside.png')
  page.click('#save')
  page.wait_for_function(
    "document.querySelector('#message').textContent.includes('outside')"
  )
  assert not (folder.parent / 'outside.png').exists()
  page.fill('#name', 'face.png')
  page.click('#save')
  page.wait_for_function(
    "document.querySelector('#message').textContent.includes('saved')"
  )
  assert (folder / 'explored' / 'face.png').read_bytes() == Path(out).read_bytes()

  page.get_by_role('button', name='Interpolate', exact=True).click()
  frame = changed_image(page, finer)
  page.locator('#frame').click(position={'x': 150, 'y': 10})
  inside = changed_image(page, frame)
  page.click('#loop')
  page.locator('#frame').click(position={'x': 250, 'y': 10})
  changed_image(page, inside)
  assert '--loop' in page.inner_text('#command')
  page.click('#animation')
  page.wait_for_function(
    "document.querySelector('#message').textContent.includes('webp')"
  )
  assert not tab.complaints
  foreign = [url for url in tab.requested_urls() if not url.startswith(address)]
  assert not foreign


def command_with(page, words):
  """Waits for these words in the command line; returns the image that it writes."""
  page.wait_for_function(
    "words => document.querySelector('#command').textContent.includes(words)", arg=words
  )
  shown = changed_image(page, '')
  line = shlex.split(page.inner_text('#command'))
  sample.main(line[3:])
  out = Path(line[-1].removeprefix('--out='))
  assert base64.b64decode(shown.partition(',')[2]) == out.read_bytes()
  return out


def test_a_photograph_is_projected_and_moved(explorer, new_tab, tmp_path):
  folder, port = explorer
  pixels = np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)
  Image.fromarray(pixels).save(tmp_path / 'cat.png')
  (tmp_path / 'text.png').write_text('text')
  tab = new_tab()
  page = tab.page
  says = lambda name, text: page.wait_for_function(
    '([name, text]) => document.querySelector(name).textContent.includes(text)',
    arg=[name, text],
  )
  opened = lambda name: page.set_input_files('input[type=file]', tmp_path / name)
  page.goto(f'http://127.0.0.1:{port}')
  first = changed_image(page, '')
  page.click('#loss')
  page.get_by_role('option', name='pixels').click()
  opened('text.png')
  says('#message', 'text.png is not an image')

  page.fill('#steps', '9999')
  opened('cat.png')
  says('#progress', 'of 9999, pixels')
  page.locator('#psi').click(position={'x': 100, 'y': 10})  # meanwhile
  changed_image(page, first)
  assert 'step' in page.inner_text('#progress')
  page.click('#cancel')
  says('#message', 'cancelled')
  assert not list((folder / 'explored').glob('*.npz'))

  page.fill('#steps', '3')
  opened('cat.png')
  command_with(page, '--latents=')
  page.get_by_text('Directions').click()
  page.locator('#direction0').click(position={'x': 200, 'y': 10})
  moved = command_with(page, '--direction=sefa0:')
  page.fill('#name0', 'smile')
  page.press('#name0', 'Enter')
  command_with(page, '--direction=smile:')
  page.get_by_role('button', name='Mix', exact=True).click()
  assert command_with(page, '--mix=1') == moved  # the same file, another image
  assert {p.name for p in (folder / 'explored').glob('*.npz')} == {'cat.npz'}
  assert not tab.complaints


def test_the_explorer_opens_nothing_elsewhere(explorer, new_tab):
  _, port = explorer
  page = new_tab().page
  page.goto(f'http://127.0.0.1:{port}/?generator=../../etc/passwd')
  page.wait_for_selector('#refused')
  assert 'lies outside' in page.inner_text('#refused')
  assert page.locator('#image').count() == 0


def test_the_explorer_is_reached_from_this_machine_alone(explorer):
  _, port = explorer
  with socket.socket() as s:  # also this machine, but not the address listened on
    assert s.connect_ex(('127.0.0.2', port))
  connection = http.client.HTTPConnection('127.0.0.1', port)
  connection.request('GET', '/', headers={'Host': 'evil.example'})
  assert connection.getresponse().status == 400
  connection.close()
