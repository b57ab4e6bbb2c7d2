"""Chromium, driven by Playwright, the fixtures of tests of pages."""

import shutil

import pytest

FLAGS = (
  *('--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run'),
  *('--disable-background-networking', '--disable-component-update', '--disable-sync'),
)


@pytest.fixture(scope='module')
def chromium():
  from playwright.sync_api import sync_playwright

  path = shutil.which('chromium')
  assert path, 'apt-get install chromium'
  with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=path, args=[*FLAGS])
    yield browser
    browser.close()


class Tab:
  """A page that records its requests, errors and warnings."""

  def __init__(self, browser, **options):
    self.context = browser.new_context(**options)
    self.page = self.context.new_page()
    self.complaints, self.urls = [], []
    self.page.on('pageerror', lambda error: self.complaints.append(str(error)))
    self.page.on('dialog', lambda dialog: self.complaints.append(dialog.message))
    self.page.on('console', self._note)
    self.page.on('request', lambda request: self.urls.append(request.url))

  def _note(self, message):
    if message.type in ('error', 'warning'):
      self.complaints.append(message.text)

  def requested_urls(self):
    return [url for url in self.urls if not url.startswith('data:')]


@pytest.fixture
def new_tab(chromium):
  tabs = []

  def new(**options):
    tabs.append(Tab(chromium, **options))
    return tabs[-1]

  yield new
  for tab in tabs:
    tab.context.close()
