"""Surveys of image headers: unusable images, and the description of the output."""

import numpy as np
import pytest

from gan_jax import UserError, prepare
from gan_jax.data.folder import open_folder_or_zip
from gan_jax.prepare.survey import survey_headers
from tests.data.images import encode


def test_headers_are_described_and_sorted_into_usable_and_unusable(folder):
  (folder / 'cat/0.png').write_bytes(encode(np.zeros((40, 48, 3), np.uint8)))
  (folder / 'dog/5.png').write_bytes(b'text')
  survey = survey_headers(open_folder_or_zip(folder), 'pets', threads=2)
  assert survey.sizes[0].tolist() == [48, 40] and survey.sizes[11].tolist() == [0, 0]
  assert survey.modes == {'RGB': 11} and survey.bad_headers.keys() == {11}
  options = prepare.PrepareOptions(64, 3, '', False, (0, 0, 0), 0, 1000)
  unusable = survey.unusable(options)
  assert len(unusable) == 12 and 'is not an image' in unusable['dog/5.png']
  assert 'is 48 x 40, not square' in unusable['cat/0.png']
  assert 'is 32 x 32, smaller than 64' in unusable['cat/1.png']
  text = survey.describe(options)
  assert 'pets (folder): 12 images, 1 other files\nlabels: cat 6, dog 6\n' in text
  assert 'sizes: 32 x 32 to 48 x 40, 1 not square; modes: RGB 11\n' in text
  assert 'output: levels 64, 32, 16, 8, 4; channels: 3;' in text
  assert 'unusable images: 12: cat/0.png is' in text


def test_res_is_the_common_side_or_has_to_be_given(folder):
  source = open_folder_or_zip(folder)
  assert survey_headers(source, 'pets', threads=1).common_side() == 32
  (folder / 'cat/0.png').write_bytes(encode(np.zeros((40, 40, 3), np.uint8)))
  survey = survey_headers(open_folder_or_zip(folder), 'pets', threads=1)
  with pytest.raises(
    UserError, match='--res is needed: the shorter sides are 32 to 40'
  ):
    survey.common_side()
