"""The page: embedded and linked images, and text of a run that must not be markup."""

import base64
import re

import numpy as np
import pytest
from PIL import Image

from gan_jax.report import html, run_summary
from tests.report.pages import page_data, write_image


def test_no_text_of_a_run_becomes_markup(workdir):
  evil = workdir.with_name('<img src=x onerror=alert(1)>')
  workdir.rename(evil)
  text = html.render([evil], evil)
  assert page_data(text)['runs'][0]['name'] == evil.name
  assert '<img' not in text and text.count('</script>') == 3
  assert '&lt;img src=x onerror=alert(1)&gt;' in text  # the title
  (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
  assert "default-src 'none'" in policy and 'http' not in policy
  scripts = re.findall(r'<script>(.*?)</script>', text, re.DOTALL)
  for script in scripts:
    assert f"'sha256-{html.csp_digest(script)}'" in policy
  assert len(scripts) == 2


def test_images_are_embedded_up_to_a_limit(workdir):
  (run,) = page_data(html.render([workdir], workdir))['runs']
  grid = (workdir / 'samples' / '0000000200.png').read_bytes()
  kind, _, body = run['grids'][1]['src'].partition(',')
  assert kind == 'data:image/png;base64' and base64.b64decode(body) == grid
  grids = run_summary.summarize_run(workdir)['grids']
  linked = html.ReportImages(workdir, 0).with_sources(grids, 10**9)
  assert [s['src'] for s in linked] == [
    'samples/0000000100.png',
    'samples/0000000200.png',
  ]
  assert html.ReportImages(None, 0).with_sources(grids, 10**9) == []


def test_links_to_files_are_quoted(tmp_path):
  path = tmp_path / 'a#b?c%d.png'
  write_image(path)
  (entry,) = html.ReportImages(tmp_path, 0).with_sources([{'src': path}], 9)
  assert entry['src'] == 'a%23b%3Fc%25d.png'


def test_large_images_are_reduced_where_links_are_impossible(tmp_path):
  noise = np.random.default_rng(0).integers(0, 255, (1500, 3000, 3), np.uint8)
  path = tmp_path / 'x.png'
  Image.fromarray(noise).save(path)
  (entry,) = html.ReportImages(None).with_sources([{'src': path}], 2_000_000)
  kind, _, body = entry['src'].partition(',')
  (tmp_path / 'y.webp').write_bytes(base64.b64decode(body))
  with Image.open(tmp_path / 'y.webp') as reduced:
    assert kind == 'data:image/webp;base64' and reduced.size == (1280, 640)
  path.write_bytes(b'no image' * 300_000)
  assert html.ReportImages(None).source(path, 2_000_000) is None


@pytest.mark.parametrize('n', [0, 1, 2, 7, 100])
def test_the_first_few_images_are_spread_evenly(n):
  order = html.spread_order(n)
  assert sorted(order) == list(range(n))
  if n == 100:
    assert order[:2] == [99, 0]
    gaps = np.diff(sorted(order[:10]))
    assert gaps.max() <= 2 * np.median(gaps)


def test_the_page_replaces_the_one_before(workdir):
  (workdir / 'report.html').write_text('before')
  assert html.write_report([workdir]) == workdir / 'report.html'
  assert page_data((workdir / 'report.html').read_text())
  assert not list(workdir.glob('.*'))
