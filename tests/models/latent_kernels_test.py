"""The kernels that take the latent, however the class and the chunks are arranged."""

import jax
import numpy as np
import pytest

from gan_jax import BigGAN, ProGAN, StyleGAN

WIDTHS = dict(g_widths=(4,) * 4, d_widths=(4,) * 4)
SMALL = dict(res=16, g_ch=2, d_ch=2, g_widths=(4, 2, 1), d_widths=(1, 1, 1))
BLOCKS = dict(g_ch=8, d_ch=8, depth=2, d_widths=(1, 1, 1, 1))


def variables(gan):
  """Random numbers in the shapes of G's variables; nothing is compiled."""
  rng = np.random.default_rng(0)
  shapes, _ = jax.eval_shape(gan.init, jax.random.key(0))
  return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)


@pytest.mark.parametrize(
  'fields, chunks, outputs',
  [
    (dict(hier=True, n_classes=3), 3, [128, 24, 12]),
    (dict(hier=True), 3, [128, 24, 12]),
    (dict(hier=False, n_classes=3), 1, [128]),
    (dict(hier=True, n_classes=3, **BLOCKS), 1, [None]),
  ],
)
def test_chunks_of_a_biggan(fields, chunks, outputs):
  gan = BigGAN(dim_z=6, shared_dim=5, **(SMALL | fields))
  g = variables(gan)
  kernels = gan.latent_kernels(g)
  assert len(kernels) == chunks
  size = 6 // chunks
  for i, (kernel, n) in enumerate(zip(kernels, outputs, strict=True)):
    assert kernel.shape[0] == 6 and n in (None, kernel.shape[1])
    rows = np.flatnonzero(np.abs(kernel).sum(1))
    np.testing.assert_array_equal(rows, np.arange(i * size, (i + 1) * size))
  linear = g['params']['linear']['kernel']
  np.testing.assert_array_equal(kernels[0][:size, : linear.shape[1]], linear[-size:])
  blocks = [x for name, x in g['params'].items() if name.startswith('block')]
  norms = [x[name] for x in blocks for name in x if name.startswith('bn')]
  if chunks == 3:
    gain = g['params']['block1']['bn1']['gain']['kernel']  # of the class and the chunk
    np.testing.assert_array_equal(kernels[2][4:, : gain.shape[1]], gain[-2:])
  elif 'depth' in fields:
    n = sum(norm[x]['kernel'].shape[1] for norm in norms for x in ('gain', 'bias'))
    assert n and kernels[0].shape[1] == linear.shape[1] + n


def test_the_first_layer_of_a_progan():
  gan = ProGAN(res=16, dim_z=6, n_classes=3, **WIDTHS)
  g = variables(gan)
  (kernel,) = gan.latent_kernels(g)
  np.testing.assert_array_equal(kernel, g['params']['dense']['kernel'][:6])


def test_the_styles_of_a_stylegan():
  gan = StyleGAN(res=16, dim_z=6, dim_w=5, mapping_layers=1, **WIDTHS)
  kernels = gan.latent_kernels(variables(gan))
  assert [x.shape for x in kernels] == [(5, 8)] * 6
  traditional = StyleGAN(
    res=16, dim_z=6, dim_w=6, mapping_layers=0, styles=False, const=False, **WIDTHS
  )
  assert [x.shape for x in traditional.latent_kernels(variables(traditional))] == [
    (6, 64)
  ]
