"""ONNX models: onnxruntime computes what the sampler does."""

import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import UserError
from gan_jax.importers.sources import read_published
from gan_jax.sampling import onnx_export

GOLDEN = Path(__file__).parents[1] / 'golden'
SOURCES = (
  'progan_stylegan/progan_tiny.pkl',
  'progan_stylegan/stylegan_tiny.pkl',
  'biggan_metrics/checkpoints/exp_zip',
  'biggan_metrics/checkpoints/hf_zip',
)
HAS_ONNX = all(map(importlib.util.find_spec, ('jax2onnx', 'onnxruntime')))


@pytest.mark.skipif(not HAS_ONNX, reason='needs the extra onnx, and jax2onnx')
@pytest.mark.filterwarnings('default')  # of packages that jax2onnx imports
@pytest.mark.parametrize('name', SOURCES)
def test_onnxruntime_agrees_with_the_sampler(tmp_path, rng_seed, name):
  import onnxruntime

  source = read_published(GOLDEN / name)
  gan, g = source.gan, source.ema
  path = onnx_export.export_onnx(gan, g, tmp_path / 'gen.onnx')
  assert [p.name for p in tmp_path.iterdir()] == ['gen.onnx']
  session = onnxruntime.InferenceSession(path)
  properties = session.get_modelmeta().custom_metadata_map
  assert json.loads(properties['gan_jax'])['res'] == gan.res
  rng = np.random.default_rng(rng_seed)
  generate = jax.jit(gan.generate)
  for n, psi in ((3, 0.7), (1, 0.517)):
    z = rng.standard_normal((n, gan.dim_z)).astype(np.float32)
    feed = {'z': z, 'psi': np.array(psi, np.float32)}
    labels = jnp.zeros(n, jnp.int32)
    if gan.n_classes:
      labels = feed['classes'] = rng.dirichlet(np.ones(gan.n_classes), n).astype('f4')
    (images,) = session.run(['images'], feed)
    want = np.asarray(generate(g, z, labels, np.float32(psi)))
    assert images.shape == want.shape and np.ptp(want) > 0.1
    np.testing.assert_allclose(images, want, atol=1e-5 * max(1, np.abs(want).max()))


@pytest.mark.skipif(HAS_ONNX, reason='jax2onnx is installed')
def test_a_missing_package_is_named(tmp_path):
  with pytest.raises(UserError, match='pip install --no-deps jax2onnx'):
    onnx_export.check_onnx(tmp_path / 'gen.onnx')
