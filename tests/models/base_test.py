"""What all families share: sampling defaults."""

import math

import pytest

from gan_jax.importers.nvidia_settings import stylegan_from_kwargs
from gan_jax.models.base import SamplingDefaults
from gan_jax.models.biggan import BigGAN
from gan_jax.models.progan import ProGAN

BIGGAN = dict(res=16, g_widths=(1, 1, 1), d_widths=(1, 1), dim_z=3)


@pytest.mark.parametrize(
  'gan, given, want',
  [
    (ProGAN(res=8), (None, None), (1, math.inf)),
    (ProGAN(res=8), (0.5, None), (0.5, math.inf)),
    (BigGAN(**BIGGAN), (None, None), (1, math.inf)),
    (BigGAN(**BIGGAN), (0.5, None), (0.5, 2)),
    (BigGAN(**BIGGAN), (0.5, math.inf), (0.5, math.inf)),
    (BigGAN(**BIGGAN, stats_rows=51), (None, None), (1, 2)),
    (BigGAN(**BIGGAN, stats_rows=51), (None, math.inf), (1, math.inf)),
    (stylegan_from_kwargs({'resolution': 8}, {'resolution': 8}), (None, 2), (0.7, 2)),
  ],
)
def test_psi_and_truncation_where_none_are_given(gan, given, want):
  assert gan.sampling_defaults.resolve(*given) == want


@pytest.mark.parametrize('psi, want', [(0.5, 0.5), (None, 1.0)])
def test_published_weights_keep_their_psi(psi, want):
  g = {'resolution': 8, 'truncation_psi': psi}
  gan = stylegan_from_kwargs(g, {'resolution': 8})
  assert gan.sampling_defaults == SamplingDefaults(want)
