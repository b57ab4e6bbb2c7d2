"""Runs in object stores: trained, killed and resumed, sampled, scored, reported."""

import json

import numpy as np
from PIL import Image

from gan_jax import evaluate, sample
from gan_jax.report.__main__ import main as report
from gan_jax.storage.store import Store
from gan_jax.storage.working_copy import open_workdir, working_copy
from tests.end_to_end.fault_tolerance_test import DIGITS, arrays, small_config
from tests.runs import output, start_main, train, wait_until


def newest_arrays(url):
  with open_workdir(url) as folder:
    copy = working_copy(folder)
    step = max(copy.steps())
    copy.fetch(step)
    return step, arrays(folder, step)


def test_a_run_in_a_store_trains_resumes_and_is_read_by_all_commands(
  url, tmp_path, capsys
):
  config = small_config(train__images=8, log__checkpoint_every=8)
  train(config, url)
  state = train(config | {'train': config['train'] | {'images': 16}}, url)
  assert int(state.images) == 16
  names = Store(url).list()
  assert {'config.json', 'run.json', 'metrics.jsonl', 'report.html'} <= set(names)
  assert any(name.startswith('samples/') for name in names)
  assert any(name.startswith('tensorboard/') for name in names)
  sample.main([f'--workdir={url}', '--seeds=0-3', f'--out={tmp_path}/grid.png'])
  Image.open(tmp_path / 'grid.png').verify()
  flags = [
    '--metrics=swd',
    '--num=16',
    '--reals=16',
    '--batch=16',
    f'--cache={tmp_path}',
  ]
  evaluate.main([f'--workdir={url}', *flags])
  lines = Store(url).read('evaluations.jsonl').splitlines()
  assert lines and all(json.loads(line)['images'] == 16 for line in lines)
  report([url])
  printed = capsys.readouterr().out
  assert f'wrote {url}/report.html' in printed
  assert f'--workdir={url} --seeds' in printed + capsys.readouterr().err
  report([url, f'--out={tmp_path}/page.html'])
  assert (tmp_path / 'page.html').stat().st_size > 10_000


def test_a_killed_run_in_a_store_resumes_as_the_same_run(url, tmp_path):
  # A cache of their own: a process killed while it writes a program corrupts the cache.
  own_cache = dict(JAX_COMPILATION_CACHE_DIR=str(tmp_path / 'programs'))
  flags = ('--config.train.images=160', '--config.log.checkpoint_every=16')
  start = lambda workdir: start_main(
    f'--workdir={workdir}', *DIGITS, *flags, **own_cache
  )
  whole = start(tmp_path / 'whole')
  assert 'finished at image 160' in output(whole)
  killed = start(url)
  wait_until(lambda: 'checkpoints/4/default/manifest.json' in Store(url).list(), killed)
  killed.kill()
  output(killed)
  resumed = start(url)
  printed = output(resumed)
  assert resumed.returncode == 0 and 'resuming at image' in printed, printed
  assert 'gan_jax-' not in printed  # the URL is named, not the local folder
  step, found = newest_arrays(url)
  for a, b in zip(found, arrays(tmp_path / 'whole', step), strict=True):
    np.testing.assert_array_equal(a, b)
