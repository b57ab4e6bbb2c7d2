"""NVIDIA's pickles: a run that continues to grow, and both layouts of ProGAN."""

import numpy as np

import gan_jax
from gan_jax import importers
from gan_jax.importers import __main__ as cli
from gan_jax.models.base import variable_shapes
from gan_jax.storage import weights


def test_a_growing_gan_continues_at_its_level_of_detail(
  tmp_path, progan, restore_run, assert_equal_trees
):
  workdir = tmp_path / 'run'
  cli.main([str(progan.path), f'--workdir={workdir}'])
  config, state = restore_run(workdir)
  phase = config.schedule.phase_at(int(state.images), config.gan.res)
  assert phase.res == 16 and phase.alpha == 0.5  # lod 0.5
  for name in ('g', 'd', 'ema'):
    assert_equal_trees(getattr(state, name), getattr(progan, name))
  # With 32 pixels it has yet to grow; the layers up to 16 pixels are kept.
  flags = [str(progan.path), f'--workdir={tmp_path / "more"}']
  widths = (8, 8, 8, 8, 4)
  flags += ['--set=res=32', f'--set=g_widths={widths}', f'--set=d_widths={widths}']
  cli.main([*flags, '--partial'])
  config, state = restore_run(tmp_path / 'more')
  phase = config.schedule.phase_at(int(state.images), config.gan.res)
  assert config.gan.res == 32 and phase.res == 16 and phase.alpha == 0.5
  fresh = {k: v for k, v in state.g['params'].items() if k not in progan.g['params']}
  assert set(fresh) == {'conv32', 'conv32_up', 'rgb32'}
  kept = {k: state.g['params'][k] for k in progan.g['params']}
  assert_equal_trees(kept, progan.g['params'])


def test_the_copy_of_progan_in_the_stylegan_repository(progan, assert_equal_trees):
  """Its up-convolutions are stored [h, w, in, out], the original's [h, w, out, in]."""
  g, d, _ = weights.read_network_pickle(progan.path)
  gan = importers.progan_from_kwargs(g.kwargs, d.kwargs)
  like, _ = variable_shapes(gan)
  copied = {
    k: v.swapaxes(2, 3) if k.endswith('Conv0_up/weight') else v
    for k, v in g.variables.items()
  }
  args = (gan, 'G', g.kwargs, like)
  want = importers.convert_progressive(g.variables, *args)
  assert_equal_trees(
    importers.convert_progressive(copied, *args, library='dnnlib'), want
  )


def test_published_latents_give_the_published_images(tmp_path, pickles):
  run, latents = tmp_path / 'run', tmp_path / 'z.npz'
  cli.main([str(pickles / 'stylegan_tiny.pkl'), f'--workdir={run}'])
  want = np.load(pickles / 'stylegan_tiny_expected.npz')
  np.savez(latents, z=want['latents'])
  generator = gan_jax.load(run)
  for psi in (0.7, 1):
    theirs = (want[f'Gs_images_psi{psi}'].transpose(0, 2, 3, 1) + 1) * 127.5
    ours = generator.sample(latents=latents, psi=psi, noise='stored')
    assert np.abs(ours - np.clip(theirs, 0, 255)).max() < 0.51  # rounded
