"""Hugging Face's BigGAN-deep and its table of batch statistics."""

import jax
import numpy as np
import pytest

from gan_jax.config.workdir import read_config
from gan_jax.importers import __main__ as cli
from gan_jax.importers.sources import read_published
from gan_jax.storage import checkpoint
from tests.parity.huggingface_statistics import select_statistics


@pytest.fixture(scope='module')
def huggingface(checkpoints):
  return read_published(checkpoints / 'hf_zip')


def test_statistics_of_each_truncation(huggingface):
  gan, g = huggingface.gan, huggingface.ema
  # 0.58 and 0.94 are those whose row is not the one that arithmetic suggests.
  at = jax.jit(gan.at_truncation)
  for truncation in (0.02, 0.4, 0.58, 0.94, 0.5678, 0.333, 0.999, 1.0):
    want = select_statistics(g, truncation, gan.stats_rows)
    got = at(g, np.float32(truncation))
    for a, b in zip(
      jax.tree.leaves(got['batch_stats']),
      jax.tree.leaves(want['batch_stats']),
      strict=True,
    ):
      np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6, err_msg=str(truncation))
  assert at._cache_size() == 1


@pytest.mark.slow  # compiles the initialisation of D
def test_a_run_has_the_table_of_batch_statistics(
  tmp_path, huggingface, assert_equal_trees
):
  cli.main([str(huggingface.path), f'--workdir={tmp_path}'])
  gan = read_config(tmp_path).gan
  assert gan == huggingface.gan
  like, _ = jax.eval_shape(gan.init, jax.random.key(0))
  restored, _ = checkpoint.restore_subtrees(tmp_path, {'ema': like})
  assert_equal_trees(restored['ema'], huggingface.ema)
