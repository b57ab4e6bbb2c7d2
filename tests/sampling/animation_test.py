"""Animations: alpha, durations, sizes."""

import numpy as np
import pytest
from PIL import Image

from gan_jax.sampling.animation import durations_in, opaque, write_animation


def moving_square(n=6, size=256, soft=False):
  """RGBA frames of a square that moves; one frame is empty."""
  frames = np.zeros((n, size, size, 4), np.uint8)
  for i in range(n):
    if i != 3:
      at = slice(20 * i, 20 * i + 40)
      frames[i, at, at] = (250, 30 + 8 * i, 10, 120 if soft else 255)
  return frames


def read(path):
  """RGBA frames and the durations in ms."""
  frames, durations = [], []
  with Image.open(path) as image:
    for i in range(getattr(image, 'n_frames', 1)):
      image.seek(i)
      image.load()
      durations.append(image.info.get('duration'))
      frames.append(np.asarray(image.convert('RGBA')).astype(int))
  return np.stack(frames), durations


def test_a_transparent_gif_has_no_ghosts(tmp_path, rng_seed):
  rng = np.random.default_rng(rng_seed)
  random = np.kron(rng.integers(0, 256, (5, 16, 16, 4)), np.ones((1, 16, 16, 1)))
  for i, images in enumerate((moving_square(), random.astype(np.uint8))):
    write_animation(tmp_path / f'{i}.gif', images, 10)
    got, _ = read(tmp_path / f'{i}.gif')
    assert len(got) == len(images)
    shown = images[..., 3] >= 128
    np.testing.assert_array_equal(got[..., 3], 255 * shown)
    difference = np.abs(got[..., :3] - images[..., :3].astype(int))
    assert difference[shown].max() <= (0 if i == 0 else 40)


@pytest.mark.parametrize('kind', ['webp', 'apng'])
def test_soft_alpha_is_kept(tmp_path, kind):
  images = moving_square(soft=True)
  write_animation(tmp_path / f'a.{kind}', images, 10)
  got, _ = read(tmp_path / f'a.{kind}')
  assert len(got) == len(images)
  np.testing.assert_array_equal(got[..., 3], images[..., 3])


def test_an_mp4_has_a_white_background_and_an_even_size(tmp_path):
  import av
  import imageio.v3 as iio

  images = moving_square(size=257, soft=True)
  write_animation(tmp_path / 'A.MP4', images, 12.5)
  with av.open(str(tmp_path / 'A.MP4')) as container:
    (stream,) = container.streams.video
    assert stream.codec_context.pix_fmt == 'yuv420p' and stream.codec.name == 'h264'
    assert stream.average_rate == 12.5
  got = iio.imread(tmp_path / 'A.MP4', plugin='pyav').astype(int)
  assert got.shape == (6, 258, 258, 3)
  assert np.abs(got[:, -60:, :60] - 255).max() <= 8
  want = opaque(images)[0, 10:30, 10:30]
  assert np.abs(got[0, 10:30, 10:30] - want).mean() < 60


def test_opaque_frames():
  frame = np.array(
    [[[[10, 20, 30, 255], [10, 20, 30, 0], [0, 100, 200, 51]]]], np.uint8
  )
  np.testing.assert_array_equal(
    opaque(frame), [[[[10, 20, 30], [255, 255, 255], [204, 224, 244]]]]
  )


@pytest.mark.parametrize('kind', ['gif', 'webp', 'apng'])
@pytest.mark.parametrize('fps', [24, 7.5])
def test_durations_add_up(tmp_path, kind, fps):
  n = 25
  images = np.zeros((n, 4, 4, 3), np.uint8)
  images[np.arange(n), 0, 0] = 10 * np.arange(n)[:, None]
  write_animation(tmp_path / f'a.{kind}', images, fps)
  frames, durations = read(tmp_path / f'a.{kind}')
  assert frames.shape == (n, 256, 256, 4)
  assert abs(sum(durations) - 1000 * n / fps) <= (5 if kind == 'gif' else 0.5)
  assert max(durations) - min(durations) <= (10 if kind == 'gif' else 1)


def test_durations_in_whole_units():
  assert durations_in(100, 24, 6) == [4, 4, 4, 5, 4, 4]
  assert durations_in(100, 25, 3) == [4, 4, 4]
  assert durations_in(100, 0.5, 2) == [200, 200]


@pytest.mark.parametrize('kind', ['gif', 'webp', 'apng', 'mp4'])
def test_gray_frames(tmp_path, kind):
  images = np.full((2, 4, 4, 1), 0, np.uint8)
  images[1] = 200
  write_animation(tmp_path / f'a.{kind}', images, 10)
  assert (tmp_path / f'a.{kind}').stat().st_size > 100
