"""The command gan_jax.evaluate: files, flags, and one-sentence errors."""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gan_jax import UserError, data, evaluate
from gan_jax.config.workdir import read_config
from gan_jax.evaluation import results
from gan_jax.evaluation.metrics import inception, lpips
from gan_jax.evaluation.metrics.feature_network import FeatureNetwork
from gan_jax.evaluation.real_images import load_real_images
from gan_jax.runtime.mesh import make_mesh
from gan_jax.storage.files import cache_folder


def test_scores_are_printed_written_and_compared(
  workdir, cache, few_steps, capsys, tmp_path
):
  run = lambda *flags: evaluate.main(
    [f'--workdir={workdir}', f'--cache={cache}', '--reals=256', '--num=128',
     '--standing=0', *flags]
  )  # fmt: skip
  run('--metrics=fd_small,swd')
  lines = (workdir / 'evaluations.jsonl').read_text().splitlines()
  records = [json.loads(line) for line in lines]
  assert [record['metric'] for record in records] == ['fd_small', 'swd_16', 'swd']
  assert records[0]['checkpoint'] == 7 and records[0]['images'] == 56
  logged = json.loads((workdir / 'metrics.jsonl').read_text().splitlines()[-1])
  assert logged['images'] == 56
  assert logged['eval/fd_small'] == records[0]['value']
  assert f'{records[0]["value"]:.6g}' in capsys.readouterr().out
  before = tmp_path / 'before.jsonl'
  before.write_text((workdir / 'evaluations.jsonl').read_text())
  evaluate.main(['--compare', str(workdir), str(before)])
  assert capsys.readouterr().out.split()[0] == 'fd_small'
  run('--metrics=fd_small', '--raw', '--seed=128')
  with pytest.raises(UserError, match='ema False and True; seeds 128-255 and 0-127'):
    results.compare_scores(workdir, before)
  raw = results.latest_scores(workdir)['fd_small']['value']
  assert raw != records[0]['value']


def test_memorization_writes_an_image_grid(workdir, cache, few_steps, capsys):
  evaluate.main(
    [f'--workdir={workdir}', f'--cache={cache}', '--reals=256', '--num=24',
     '--standing=0', '--metrics=memorization_pixels,memorization_small']
  )  # fmt: skip
  assert f'written: {workdir}/memorization.png' in capsys.readouterr().out
  scores = results.latest_scores(workdir)
  assert scores['memorization_pixels']['value'] == 0  # noise
  assert 0 < scores['memorization_pixels_real']['value'] < 1
  with Image.open(workdir / 'memorization.png') as grid:
    width = 8 * 14 + 68 + 20 + 2 * (3 * 68 + 20)
    assert grid.size == (width, 10 * 68 + 2 * 14)


@pytest.mark.parametrize(
  'flags, words',
  [
    (['--metrics=fid_smal'], "no metric 'fid_smal'.*did you mean '?fd_small"),
    (['--metrics=kid'], '--inception=FILE'),
    (['--metrics=fid'], '1797 real images .* at least 2049'),
    (['--metrics=fd_small', '--num=96'], '96 generated images .* at least 97'),
    (['--metrics=fd_small', '--reals=9999'], '9999: digits has 1797 real images'),
    (['--metrics=ppl_z_full'], '--lpips=FILES'),
    (['--metrics=ppl_w_full'], 'needs a StyleGAN, and this is a BigGAN'),
    (['--metrics=fd_features'], 'feature network: name the file .* --features=FILE'),
    (['--features=gone'], 'gone cannot be read: No such file'),
    (['--classifiers=setup.cfg,gone'], 'setup.cfg is no exported JAX function'),
    (['--metrics=swd', '--features=gone'], '--features is for fd_features, and .*=swd'),
    (['--metrics=prd_small', '--num=19'], 'at least 20 generated images'),
    (['--data=./nowhere'], 'nowhere: there is no such folder or zip file.$'),
    (['--frontier=0.5,x'], 'thresholds above 0'),
    (['--truncation=0'], 'above 0'),
    (['--reals=-1'], 'not be negative'),
    (
      ['--protocol=progan', '--resizing=torch'],
      '^--resizing=torch contradicts --protocol=progan, which takes tf1: leave out one',
    ),
    (['--protocol=stylegan', '--raw'], '^--raw contradicts --protocol=stylegan, which'),
    (
      ['--protocol=stylegan', '--frontier=0.5,1'],
      '^--frontier=0.5,1 contradicts --protocol=stylegan, which takes untruncated ima',
    ),
    (['--checkpoint=3'], 'no checkpoint 3: there are 7'),
    (['--cache=/dev/null/x', '--metrics=fd_small'], 'cannot be written'),
  ],
)
def test_mistakes_are_one_sentence(
  workdir, cache, few_steps, flags, words, monkeypatch
):
  monkeypatch.delenv(inception.ENVIRONMENT, raising=False)
  monkeypatch.delenv(lpips.ENVIRONMENT, raising=False)
  monkeypatch.setattr(lpips, 'PACKAGE', 'not_installed')
  with pytest.raises(UserError, match=words):
    evaluate.main([f'--workdir={workdir}', f'--cache={cache}', *flags])


def test_a_named_protocol_is_stamped(workdir, cache):
  flags = ['--metrics=swd', '--swd_images=8', '--num=64', '--standing=0']
  evaluate.main(
    [f'--workdir={workdir}', f'--cache={cache}', '--protocol=pytorch-fid', *flags]
  )
  stamp = results.latest_scores(workdir)['swd']['stamp']
  assert stamp['protocol'] == 'pytorch-fid' and stamp['reals'] == 1797
  assert stamp['mirror'] is False and stamp['images'] == 8


def test_path_lengths_need_no_real_images(workdir, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(lpips, 'load', lambda paths: (None, {'network': 'stub'}))
  monkeypatch.setattr(lpips, 'distance', lambda weights, a, b: (a - b)[:, 0, 0, 0] ** 2)

  def missing(**source):
    raise data.MissingDataError('pets: there is no such folder.')

  monkeypatch.setattr(data, 'load_dataset', missing)
  flags = [f'--workdir={workdir}', '--standing=0', '--ppl_samples=16']
  evaluate.main([*flags, '--metrics=ppl_z_end'])
  assert 'without real images: pets: there is no such' in capsys.readouterr().err
  stamp = results.latest_scores(workdir)['ppl_z_end']['stamp']
  assert list(stamp) == [
    'res', 'channels', 'n', 'seeds', 'ema', 'standing', 'settings', 'crop', 'noise',
    'network',
  ]  # fmt: skip
  for metrics in ('ppl_z_end,swd', ''):
    with pytest.raises(UserError, match='pets: there is no such folder; if the data'):
      evaluate.main([*flags, f'--metrics={metrics}'])


def test_statistics_stand_in_place_of_real_images(
  workdir, tmp_path, monkeypatch, capsys
):
  rng = np.random.default_rng(0)

  def project(images):
    features = images.reshape(len(images), -1)[:, :6] / 255
    return features.astype(np.float32), np.ones((len(images), 4), np.float32)

  network = FeatureNetwork('stub', 6, 4, {'network': 'stub'}, project)
  monkeypatch.setattr(inception, 'DIM', 6)
  monkeypatch.setattr(inception, 'load', lambda *args, **options: network)
  monkeypatch.setattr(data, 'load_dataset', lambda **source: pytest.fail('read'))
  feats = rng.exponential(size=(70, 6))
  path = tmp_path / 'pets_clean_custom_na_kid.npz'
  np.savez(path, feats=feats)
  np.savez(tmp_path / 'pets.npz', mu=feats.mean(0), sigma=np.cov(feats, rowvar=False))
  both = f'{tmp_path}/pets.npz,{path}'
  run = lambda *flags: evaluate.main([f'--workdir={workdir}', '--standing=0', *flags])
  clean = [f'--statistics={both}', '--resizing=clean-fid', '--num=2049']
  run('--metrics=fid,kid', *clean)
  scores = results.latest_scores(workdir)
  fid, kid = scores['fid'], scores['kid']
  assert fid['value'] > 0 and fid['stamp']['data'] == both
  assert fid['stamp']['reals'] == 70 and fid['stamp']['mirror'] is None
  assert len(fid['stamp']['statistics']) == 64 and 'content' not in fid['stamp']
  assert kid['stamp']['subset_size'] == 70 and fid['stamp']['res'] == 16
  for flags, words in (
    (['--metrics=fid', *clean[:1]], 'take --resizing=clean-fid'),
    (['--metrics=fid', *clean, '--reals=9'], '--reals=9 contradicts --statistics='),
    (['--metrics=fid', *clean, '--mirror=always'], '--mirror=always contradicts'),
    (
      ['--metrics=accuracy', *clean],
      'accuracy needs the real images with their labels',
    ),
    ([f'--data={path}'], f'name a file of statistics with --statistics={path}'),
  ):
    with pytest.raises(UserError, match=words):
      run(*flags)


def test_workdirs_that_cannot_be_scored_are_errors(workdir, tmp_path, monkeypatch):
  with pytest.raises(UserError, match='--workdir=DIR or --compare'):
    evaluate.main([])
  with pytest.raises(UserError, match='config.json'):
    evaluate.main([f'--workdir={tmp_path}'])
  monkeypatch.setattr(os, 'access', lambda path, mode: False)
  with pytest.raises(UserError, match='cannot be written'):
    evaluate.main([f'--workdir={workdir}'])


def test_path_flags_expand_the_home_folder(monkeypatch, tmp_path):
  monkeypatch.setenv('HOME', str(tmp_path))
  flags = ['--workdir=~/run', '--cache=~/c', '--inception=~/i.pth', '--data_dir=~/d']
  flags += ['--features=~/f', '--classifiers=~/1,~/2']
  args = evaluate.make_parser().parse_args([*flags, '--compare', '~/a', '~/b'])
  paths = [args.workdir, args.cache, args.inception, args.data_dir, *args.compare]
  paths += [args.features, *args.classifiers]
  names = 'run', 'c', 'i.pth', 'd', 'a', 'b', 'f', '1', '2'
  assert paths == [tmp_path / x for x in names]
  with pytest.raises(UserError, match=f'{tmp_path}/vgg.pth: no such file'):
    lpips.load('~/vgg.pth,~/lpips.pth')
  monkeypatch.setenv(inception.ENVIRONMENT, '~/i.pth')
  with pytest.raises(UserError, match=f'{tmp_path}/i.pth: no such file'):
    inception.load(None, make_mesh())
  monkeypatch.setenv('GAN_JAX_CACHE', '~/cache')
  assert cache_folder() == tmp_path / 'cache'


def test_missing_data_are_asked_for(workdir, tmp_path):
  config, unmounted = read_config(workdir), tmp_path / 'unmounted'
  unmounted.mkdir()
  for name, more in (
    (str(tmp_path / 'gone'), ''),
    (str(unmounted), ''),
    ('cifar10', ' or --data_dir=DIR'),
  ):
    source = dataclasses.replace(config.data, name=name, data_dir=str(tmp_path))
    moved = dataclasses.replace(config, data=source)
    with pytest.raises(
      UserError, match=f'have moved, name them with --data=NEW{more}.$'
    ):
      load_real_images(workdir, moved, 'train', None, None)
    with pytest.raises(UserError, match='elsewhere: there is no such folder'):
      load_real_images(workdir, moved, 'train', './elsewhere', None)
  dataset = load_real_images(workdir, moved, 'train', 'digits', None)
  assert dataset.name == 'digits' and dataset.examples[0][0].shape == (16, 16, 1)


def test_the_cache_of_a_run_is_that_of_its_data(workdir, monkeypatch):
  config = read_config(workdir)
  source = dataclasses.replace(config.data, name='gs://b/x', cache='/ssd')
  config = dataclasses.replace(config, data=source)
  taken = []
  monkeypatch.setattr(data, 'load_dataset', lambda **source: taken.append(source))
  monkeypatch.setattr(data, 'find_changes', lambda *_: [])
  for arguments in ((), ('s3://b/y',), (None, 's3://b'), (None, None, Path('/nvme'))):
    load_real_images(workdir, config, 'train', *arguments)
  found = [(source['name'], source['data_dir'], source['cache']) for source in taken]
  assert found == [
    ('gs://b/x', None, '/ssd'),
    ('s3://b/y', None, None),
    ('gs://b/x', 's3://b', None),
    ('gs://b/x', None, '/nvme'),
  ]
