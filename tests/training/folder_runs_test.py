"""A run on a folder of RGBA images without labels: interrupted, moved, scored."""

import asyncio
import shutil
import signal
import threading

import numpy as np
import pytest

from gan_jax import UserError, evaluate
from gan_jax.config import parse_config
from gan_jax.evaluation import results
from gan_jax.evaluation.metrics import small_network
from gan_jax.storage.lock import lock_workdir
from gan_jax.training.callbacks import SampleGrids
from gan_jax.training.trainer import Trainer
from tests.data.images import encode, random_image, write_files
from tests.runs import metric_lines, wait_until

ADAM = {'beta1': 0.0, 'beta2': 0.99, 'tf_eps': True}
CONFIG = {
  'model': dict(
    family='progan', res=4, channels=4, n_classes=0, dim_z=4, g_widths=(4, 4),
    d_widths=(4, 4),
  ),
  'schedule': dict(
    resolutions=(4,), batch=(8,), stabilise=4, fade=8, ema=0.99, g_lr=(3e-3,),
    d_lr=(3e-3,),
  ),
  'g_adam': ADAM,
  'd_adam': ADAM,
  'train': {'images': 10**9},
  'log': {'metrics_every': 8, 'grid_every': 16, 'checkpoint_every': 8},
  'score': {'every': 16},
}  # fmt: skip
DEFAULTS = {'kid_small', 'precision_small'}


@pytest.fixture
def folder(tmp_path):
  rng = np.random.default_rng(0)
  images = {f'{i}.png': encode(random_image(rng, 4, 4, 4)) for i in range(40)}
  write_files(tmp_path / 'images', images)
  return tmp_path / 'images'


def test_a_notebook_interrupts_goes_on_in_a_thread_and_scores_moved_data(
  folder, tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr(small_network, 'TRAINING_STEPS', 2)
  monkeypatch.setenv('GAN_JAX_CACHE', str(tmp_path / 'cache'))
  workdir = tmp_path / 'run'
  config = parse_config({**CONFIG, 'data': {'name': str(folder)}})
  trainer = Trainer(config, workdir)
  handler = signal.getsignal(signal.SIGINT)

  async def cell():  # notebooks run their cells in an event loop
    trainer.run()

  def interrupt(*_):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(SampleGrids, '__call__', interrupt)
    with pytest.raises(KeyboardInterrupt):
      asyncio.run(cell())
  with lock_workdir(workdir), pytest.raises(UserError, match='is in use'):
    trainer.run()  # the interrupted run has left the lock
  assert signal.getsignal(signal.SIGINT) == handler
  assert [line['images'] for line in metric_lines(workdir)] == [8, 16]

  states = []
  thread = threading.Thread(target=lambda: states.append(trainer.run()))
  thread.start()
  try:
    wait_until(lambda: (workdir / results.SCORES_FILE).is_file())
    with pytest.raises(UserError, match='is in use'):
      Trainer(config, workdir).run()
  finally:
    trainer.stop()
    thread.join()
  assert 'resuming at image 8' in capsys.readouterr().out
  images = int(states[0].images)
  assert images == 8 * max(int(p.name) for p in (workdir / 'checkpoints').iterdir())
  assert {*results.latest_scores(workdir)} >= DEFAULTS
  assert int(trainer.run(images=images).images) == images  # usable, and finished

  check_scores_of_moved_data(workdir, folder, capsys)


def check_scores_of_moved_data(workdir, folder, capsys):
  moved = folder.rename(folder.with_name('moved'))
  with pytest.raises(UserError, match='no such folder .*have moved, .* --data=NEW.$'):
    evaluate.main([f'--workdir={workdir}'])
  capsys.readouterr()
  before = results.latest_scores(workdir)['kid_small']
  evaluate.main([f'--workdir={workdir}', f'--data={moved}'])
  out, err = capsys.readouterr()
  assert {line.split()[0] for line in out.splitlines()} >= DEFAULTS
  assert [line for line in err.splitlines() if line.startswith('left out')] == [
    'left out: fd_small: 40 real images leave the covariance of 96 features with rank '
    '39 at most: a Frechet distance needs at least 97 images; take more images, or '
    'kid, which needs no covariance.',
    'left out: accuracy_small needs a conditional model, and this one has no classes.',
    'left out: swd: images of 4 pixels cannot be downsampled to 16: the side must be '
    '16 times a power of two.',
    'left out: msssim: images of 4 pixels cannot be downsampled five times: sides must '
    'be multiples of 32.',
  ]
  after = results.latest_scores(workdir)['kid_small']
  assert after['stamp'] == {**before['stamp'], 'data': str(moved)}
  shutil.copy(moved / '0.png', moved / 'new.png')
  evaluate.main([f'--workdir={workdir}', f'--data={moved}', '--metrics=kid_small'])
  note = 'note: not the data that the run began with: 40 -> 41 images'
  assert note in capsys.readouterr().err.splitlines()
