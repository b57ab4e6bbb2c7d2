"""Evaluation of a run: protocols, caches, devices, frontiers and comparisons."""

import csv
import importlib
import json
import math

import jax
import numpy as np
import pytest
from PIL import Image

from gan_jax import UserError, data, evaluate
from gan_jax.config import parse_config
from gan_jax.evaluation import evaluator as evaluators
from gan_jax.evaluation import results, truncation_sweep
from gan_jax.evaluation.evaluator import Evaluator, Protocol
from gan_jax.evaluation.metrics import Observed, inception, small_network
from gan_jax.evaluation.metrics.features import FeatureStats, InceptionScore
from gan_jax.runtime.mesh import make_mesh
from gan_jax.storage.checkpoint import Checkpointer
from gan_jax.training import step
from gan_jax.training.optimizers import make_optimizer

SHARED = Protocol(n=128, reals=256, standing=0)


@pytest.fixture(scope='module', autouse=True)
def few_steps():
  """The small network is only a stand-in here."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(small_network, '_STEPS', 5)
    yield


@pytest.fixture(scope='module')
def started():
  """The smallest run before its first step: config, recipe and state."""
  config = importlib.import_module('configs.biggan_digits').get_config('tiny').to_dict()
  r = parse_config(config)
  txs = make_optimizer(r.g_adam), make_optimizer(r.d_adam)
  state = jax.jit(lambda: step.init_state(r.gan, *txs, jax.random.key(0)))()
  return config, r, jax.device_get(state)


@pytest.fixture(scope='module')
def workdir(started, tmp_path_factory):
  """A run that stopped after its first checkpoint, its average unlike its weights."""
  config, _, state = started
  folder = tmp_path_factory.mktemp('run')
  average = jax.tree.map(lambda x: 0.9 * x, state.ema['params'])
  state = state.replace(
    step=np.int32(7), images=np.uint32(56), ema={**state.ema, 'params': average}
  )
  checkpoints = Checkpointer(folder)
  checkpoints.save(7, state)
  checkpoints.wait()
  checkpoints.close()
  (folder / 'config.json').write_text(json.dumps(config))
  return folder


@pytest.fixture(scope='module')
def cache(tmp_path_factory):
  return tmp_path_factory.mktemp('cache')


@pytest.fixture(scope='module')
def digits():
  return data.load_dataset('digits', res=16, channels=1)


@pytest.fixture(scope='module')
def model(started):
  _, r, state = started
  return r.gan, state.g


@pytest.fixture(scope='module')
def evaluator(model, digits, cache):
  names = ['fd_small', 'kid_small', 'prdc_small', 'accuracy_small', 'swd']
  return Evaluator(model[0], digits, names, SHARED, cache=cache, progress=False)


def test_a_score_carries_its_protocol(evaluator, model):
  lines = evaluator.lines(model[1], standing=2)
  by_name = {line['metric']: line for line in lines}
  assert set(by_name) == {
    'fd_small', 'kid_small', 'kid_small_std', 'precision_small', 'recall_small',
    'density_small', 'coverage_small', 'accuracy_small', 'accuracy_small_real', 'swd',
    'swd_16',
  }  # fmt: skip
  assert all(math.isfinite(line['value']) for line in lines)
  assert by_name['fd_small']['best'] == 'min'
  assert by_name['recall_small']['best'] == 'max'
  stamp = by_name['fd_small']['stamp']
  assert stamp['n'] == 128 and stamp['reals'] == 256 and stamp['seeds'] == '0-127'
  assert stamp['truncation'] is None and stamp['psi'] == 1 and stamp['ema'] is True
  assert stamp['data'] == 'digits' and stamp['split'] == 'train'
  assert stamp['preprocessing'] == 'friendly 32' and stamp['dtype'] == 'float32'
  assert len(stamp['weights']) == 64 and stamp['standing'] == '2 x 64'
  assert 'weights' not in by_name['swd']['stamp']
  assert json.loads(json.dumps(lines)) == lines


def test_devices_and_batches_change_nothing(evaluator, model, digits, cache):
  names = ['fd_small', 'swd']
  one = Evaluator(
    model[0], digits, names, SHARED, cache=cache,
    mesh=make_mesh(jax.devices()[:1]), progress=False,
  )  # fmt: skip
  want = evaluator.scores(model[1], standing=2)
  ours = one.scores(model[1], standing=2)
  for name, value in ours.items():
    assert value == pytest.approx(want[name], rel=2e-3), name
  a, b = (
    np.concatenate(
      [x for x, _ in e.pictures(model[1], SHARED, np.arange(70, dtype='u4'))]
    )
    for e in (one, evaluator)
  )
  assert a.shape == (70, 16, 16, 1) and np.abs(a.astype(int) - b).max() <= 1


def test_real_statistics_are_kept_under_their_protocol(
  evaluator, model, digits, cache, monkeypatch
):
  evaluator.scores(model[1])
  files = sorted(p.name for p in cache.iterdir())
  assert [name.rsplit('-', 1)[0] for name in files] == [
    'real-patches', 'real-small', 'small',
  ]  # fmt: skip
  again = Evaluator(model[0], digits, ['fd_small'], SHARED, cache=cache, progress=False)
  want = evaluator.scores(model[1])['fd_small']
  with monkeypatch.context() as patch:
    patch.setattr(evaluators, 'read', lambda *_: pytest.fail('looks at the data again'))
    again._reals()
  assert again.scores(model[1])['fd_small'] == pytest.approx(want, rel=1e-9)
  # Another protocol is another file; a damaged file is made anew.
  path = again._real_path('small')
  other = Evaluator(
    model[0], digits, ['fd_small'], Protocol(n=128, reals=200), cache=cache
  )
  assert other._real_path('small') != path
  path.write_bytes(path.read_bytes()[:1000])
  made = Evaluator(model[0], digits, ['fd_small'], SHARED, cache=cache, progress=False)
  np.testing.assert_array_equal(
    made._reals()['small'].stats.mean, again._reals()['small'].stats.mean
  )


def test_shares_of_processes_join_to_the_stream(evaluator, monkeypatch):
  seeds = np.arange(300, dtype=np.uint32)
  parts = []
  for index in range(3):
    monkeypatch.setattr(jax, 'process_count', lambda: 3)
    monkeypatch.setattr(jax, 'process_index', lambda i=index: i)
    parts.append(evaluator._share(300, 0))
  np.testing.assert_array_equal(np.concatenate(parts), seeds)
  assert all(len(part) % 2 == 0 for part in parts)


def test_what_processes_saw_is_joined(monkeypatch):
  rows = np.arange(40, dtype=np.float32).reshape(10, 4)
  seen = Observed(None, FeatureStats(4, keep=12), InceptionScore([0, 20], 3))
  seen.stats.update(rows)
  seen.score.update(rows[:, :3])
  # Two processes that saw the same.
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  twice = lambda x: np.stack([x, x])
  monkeypatch.setattr(evaluators.multihost_utils, 'process_allgather', twice)
  joined = evaluators.gathered(seen)
  both = np.concatenate([rows, rows])
  assert joined.stats.n == 20
  np.testing.assert_array_equal(joined.stats.rows, both[:12])
  np.testing.assert_allclose(joined.stats.covariance, np.cov(both, rowvar=False))
  want = InceptionScore([0, 20], 3)
  want.update(both[:, :3])
  assert joined.score.result() == pytest.approx(want.result())


def test_a_frontier_compiles_one_sampler(evaluator, model, tmp_path):
  gan, g = model
  evaluator = Evaluator(
    gan, evaluator.dataset, ['prdc_small'], Protocol(n=64, reals=256, standing=0),
    cache=evaluator.cache, progress=False,
  )  # fmt: skip
  raw = {**g, 'params': jax.tree.map(lambda x: 1.1 * x, g['params'])}
  lines = truncation_sweep.sweep(evaluator, {True: g, False: raw}, [0.5, 2.0])
  assert [line['stamp']['truncation'] for line in lines[::4]] == [2.0, 0.5, 2.0, 0.5]
  rows = truncation_sweep.table(lines)
  assert evaluator._sampler._cache_size() == 1
  assert [(r['ema'], r['truncation']) for r in rows] == [
    (True, 2.0), (True, 0.5), (False, 2.0), (False, 0.5),
  ]  # fmt: skip
  pytest.importorskip('matplotlib')
  truncation_sweep.write(lines, tmp_path / 'frontier')
  written = (tmp_path / 'frontier.jsonl').read_text().splitlines()
  assert [json.loads(line) for line in written] == lines
  with (tmp_path / 'frontier.csv').open() as f:
    table = list(csv.DictReader(f))
  assert float(table[3]['recall_small']) == rows[3]['recall_small']
  with Image.open(tmp_path / 'frontier.png') as image:
    assert image.size == (600, 480)
  with pytest.raises(UserError, match='prdc_small'):
    truncation_sweep.plot(
      [{'truncation': 1.0, 'ema': True, 'swd': 1.0}], tmp_path / 'x.png'
    )


def test_amenable_to_truncation():
  rows = lambda *values: [{'truncation': 1.0, 'is': v} for v in values]
  assert truncation_sweep.amenable(rows(5, 6, 7.5)) == 1
  assert truncation_sweep.amenable(rows(5, 6, 4, 2)) == pytest.approx(1 / 3)
  assert truncation_sweep.amenable(rows(5, 4.99)) == 1  # within the tolerance
  with pytest.raises(UserError, match='two thresholds'):
    truncation_sweep.amenable(rows(5))


def test_the_command(workdir, cache, capsys, tmp_path):
  run = lambda *flags: evaluate.main(
    [f'--workdir={workdir}', f'--cache={cache}', '--reals=256', '--num=128',
     '--standing=0', *flags]
  )  # fmt: skip
  run('--metrics=fd_small,swd')
  lines = [
    json.loads(line)
    for line in (workdir / 'evaluations.jsonl').read_text().splitlines()
  ]
  assert [line['metric'] for line in lines] == ['fd_small', 'swd_16', 'swd']
  assert lines[0]['checkpoint'] == 7 and lines[0]['images'] == 56
  logged = json.loads((workdir / 'metrics.jsonl').read_text().splitlines()[-1])
  assert logged['images'] == 56
  assert logged['eval/fd_small'] == lines[0]['value']
  assert f'{lines[0]["value"]:.6g}' in capsys.readouterr().out
  before = tmp_path / 'before.jsonl'
  before.write_text((workdir / 'evaluations.jsonl').read_text())
  evaluate.main(['--compare', str(workdir), str(before)])
  assert capsys.readouterr().out.split()[0] == 'fd_small'
  run('--metrics=fd_small', '--raw', '--seed=128')
  with pytest.raises(UserError, match='ema False and True; seeds 128-255 and 0-127'):
    results.compare_scores(workdir, before)
  raw = results.latest_scores(workdir)['fd_small']['value']
  assert raw != lines[0]['value']


@pytest.mark.parametrize(
  'flags, words',
  [
    (['--metrics=fid_smal'], "no 'fid_smal'.*did you mean fd_small"),
    (['--metrics=fid'], '--inception=FILE'),
    (['--metrics=fd_small', '--num=96'], '96 generated images .* at least 97'),
    (['--metrics=fd_small', '--reals=9999'], '9999 real images .* has 1797'),
    (['--metrics=ppl_w_full'], '--lpips=FILES'),
    (['--frontier=0.5,x'], 'thresholds above 0'),
    (['--truncation=0'], 'above 0'),
    (['--reals=-1'], 'not be negative'),
    (['--checkpoint=3'], 'no checkpoint 3: there are 7'),
  ],
)
def test_mistakes(workdir, cache, flags, words, monkeypatch):
  monkeypatch.delenv(inception.ENVIRONMENT, raising=False)
  with pytest.raises(UserError, match=words):
    evaluate.main([f'--workdir={workdir}', f'--cache={cache}', *flags])


def test_what_cannot_be_scored_or_compared(evaluator, model, tmp_path):
  broken = jax.tree.map(np.array, model[1])
  broken['params']['linear']['kernel'][0, 0] = np.nan
  with pytest.raises(UserError, match='params/linear/kernel holds NaN'):
    evaluator.scores(broken)
  with pytest.raises(UserError, match='no scores; run'):
    results.latest_scores(tmp_path)
  line = {'metric': 'fid', 'value': 1.0, 'stamp': {'n': 1}}
  (tmp_path / 'a').write_text(json.dumps(line))
  (tmp_path / 'b').write_text(json.dumps({**line, 'metric': 'is'}))
  (tmp_path / 'c').write_text('{}')
  with pytest.raises(UserError, match='no score in common'):
    results.compare_scores(tmp_path / 'a', tmp_path / 'b')
  with pytest.raises(UserError, match='does not hold scores'):
    results.compare_scores(tmp_path / 'a', tmp_path / 'c')
  with pytest.raises(UserError, match='--workdir=DIR or --compare'):
    evaluate.main([])
