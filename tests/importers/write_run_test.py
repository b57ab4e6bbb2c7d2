"""A BigGAN-PyTorch folder as a run, complete and in part."""

import shutil

import jax
import pytest

from gan_jax import BigGAN, UserError
from gan_jax.importers import __main__ as cli
from gan_jax.importers.sources import read_published
from gan_jax.training.train_state import flatten_kernels


def test_a_biggan_folder_becomes_a_run(
  tmp_path, capsys, biggan, restore_run, assert_equal_trees
):
  workdir = tmp_path / 'run'
  cli.main([str(biggan.path), f'--workdir={workdir}'])
  assert '0 skipped, 0 re-initialised' in capsys.readouterr().out
  config, state = restore_run(workdir)
  assert config.gan == biggan.gan
  assert int(state.step) == 2 and int(state.images) == 2 * 2 * 4
  for name in ('g', 'd', 'ema'):
    assert_equal_trees(getattr(state, name), getattr(biggan, name))
  adam = state.g_opt[-1]  # after the orthogonal term
  assert_equal_trees(adam.nu, flatten_kernels(biggan.g_moments.second))
  assert int(adam.count) == 2 and int(state.d_opt.count) == 4  # 2 D steps each
  assert (config.schedule.batch, config.train.d_steps) == (4, 2)
  assert config.g_adam.ortho == 1e-4 and config.g_adam.eps == 1e-6
  gan = config.gan
  assert gan.dim_z == 24 and gan.shared_dim == 8 and gan.sn_eps == 1e-6
  with pytest.raises(UserError, match='holds a run already'):
    cli.main([str(biggan.path), f'--workdir={workdir}'])


def test_another_number_of_classes_is_a_partial_import(
  tmp_path, biggan, restore_run, assert_equal_trees
):
  flags = [str(biggan.path), f'--workdir={tmp_path / "run"}', '--set=n_classes=3']
  with pytest.raises(UserError, match='--partial') as found:
    cli.main(flags)
  assert 're-initialised g/params/shared/embedding' in str(found.value)
  assert not (tmp_path / 'run').exists()
  cli.main([*flags, '--partial'])
  config, state = restore_run(tmp_path / 'run')
  assert config.gan.n_classes == 3
  assert state.g['params']['shared']['embedding'].shape == (3, 8)
  assert state.d['params']['embed']['embedding'].shape[0] == 3
  kept = {**state.g['params'], 'shared': biggan.g['params']['shared']}
  assert_equal_trees(kept, biggan.g['params'])
  assert not any(x.any() for x in jax.tree.leaves(state.d_opt))  # new ones


def test_changes_are_written_as_training_writes_keys():
  flags = ['g_widths=8,4', 'hier=false', 'n_classes=3', 'sn_eps=1e-8', 'g_init=N02']
  assert cli.parse_changes(cli.split_changes([*flags, 'family=x']), BigGAN) == {
    'g_widths': (8, 4),
    'hier': False,
    'n_classes': 3,
    'sn_eps': 1e-8,
    'g_init': 'N02',
    'family': 'x',
  }
  with pytest.raises(UserError, match="model.n_classes is 'x': int is needed"):
    cli.parse_changes({'n_classes': 'x'}, BigGAN)
  with pytest.raises(UserError, match='--set=n_classes: KEY=VALUE is needed'):
    cli.split_changes(['n_classes'])


@pytest.mark.slow  # compiles the initialisation of D
def test_a_generator_alone_is_a_partial_import(
  tmp_path, checkpoints, restore_run, assert_equal_trees
):
  (tmp_path / 'G').mkdir()
  shutil.copy(checkpoints / 'exp_legacy' / 'G_ema.pth', tmp_path / 'G')
  flags = [str(tmp_path / 'G'), f'--workdir={tmp_path / "run"}']
  with pytest.raises(UserError, match='--partial'):
    cli.main(flags)
  cli.main([*flags, '--partial'])
  _, state = restore_run(tmp_path / 'run')
  assert_equal_trees(state.ema, read_published(tmp_path / 'G').ema)
  assert_equal_trees(state.g, state.ema)
