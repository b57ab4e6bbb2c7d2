"""Where samples may be written, and what is refused before anything is computed."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from gan_jax import UserError
from gan_jax.sampling import output
from gan_jax.sampling.image_io import write_images
from gan_jax.sampling.latents import Latents
from gan_jax.sampling.planning import PlannedImages, row_major


def planned(n=3, value=7, shape=(4, 4, 3)):
  """Images that are already there; image i has the value `value + i`."""
  images = np.stack([np.full(shape, value + i, np.uint8) for i in range(n)])
  classes, seeds = np.eye(n, dtype=np.float32), np.arange(n, dtype=np.uint32)
  latents = Latents('z', np.zeros((n, 2), np.float32))
  return PlannedImages(iter([images]), classes, seeds, row_major(n, 2), latents)


def values(folder):
  """File name -> pixel value of each image in a folder."""
  found = {}
  for path in sorted(folder.iterdir()):
    with Image.open(path) as image:
      found[path.name] = np.asarray(image).flat[0]
  return found


@pytest.mark.parametrize(
  'name, kind',
  [
    ('grid.png', '.png'),
    ('GRID.PNG', '.png'),
    ('a.b.Npz', '.npz'),
    ('samples', ''),
    ('samples_psi0.7', ''),
    ('run.2024-05', ''),
    ('film.APNG', '.apng'),
    ('film.WebP', '.webp'),
  ],
)
def test_formats_by_name(tmp_path, name, kind):
  out = tmp_path / 'new' / name
  assert output.output_format(out) == kind
  output.check_output(out)
  assert not list(tmp_path.iterdir())
  write_images(out, planned())
  if kind:
    assert out.is_file() and len(list(out.parent.iterdir())) == 1
  else:
    assert list(values(out)) == [f'00000{i}.png' for i in range(3)]


def test_files_in_upper_case_have_their_content(tmp_path):
  write_images(tmp_path / 'A.NPZ', planned())
  with np.load(tmp_path / 'A.NPZ') as z:
    assert z['images'].shape == (3, 4, 4, 3) and z['labels'].tolist() == [0, 1, 2]
    assert (z['psi'], z['truncation']) == (1, np.inf)
  write_images(tmp_path / 'A.PNG', planned())
  with Image.open(tmp_path / 'A.PNG') as image:
    assert (image.format, image.size) == ('PNG', (14, 14))


def description(file):
  """What the metadata of an image or an animation says, however it is stored."""
  if file.suffix == '.mp4':
    import imageio.v3 as iio

    return iio.immeta(file, plugin='pyav')['comment']
  with Image.open(file) as image:
    exif = image.getexif().get(ExifTags.Base.ImageDescription)
    comment = image.info.get('comment', b'').decode()
    return exif or comment or image.info['Description']


@pytest.mark.parametrize('name', ['a.png', 'a.gif', 'a.webp', 'a.apng', 'a.mp4', 'b'])
def test_files_say_their_psi_and_truncation(tmp_path, name):
  if name == 'a.mp4':
    pytest.importorskip('av')
  out = tmp_path / name
  write_images(out, planned()._replace(psi=0.7, truncation=float('inf')))
  for file in [out] if out.suffix else out.iterdir():
    assert description(file) == 'psi=0.7 truncation=inf'


def test_an_existing_folder_may_have_any_name(tmp_path):
  folder = tmp_path / 'samples.final'
  with pytest.raises(UserError, match=r'end it in .png, .npz, .*or name a folder'):
    output.check_output(folder)
  folder.mkdir()
  output.check_output(folder)


@pytest.mark.parametrize(
  'name, words',
  [
    ('x.jpg', r"end it in .png, .npz, .gif, .webp, .mp4.*did you mean '.png'"),
    ('.png', 'a name is needed before the .png'),
    ('folder.png', 'folder.png is a folder, not a file'),
    ('file', 'file is a file, not a folder'),
    ('nowhere', 'nowhere is a file, not a folder'),
    ('file/x.png', 'x.png cannot be written: .*file is not a folder'),
    ('x' * 300 + '.png', 'cannot be written: File name too long'),
    ('x' * 300, 'cannot be written: File name too long'),
  ],
)
def test_outputs_that_are_refused(tmp_path, name, words):
  (tmp_path / 'folder.png').mkdir()
  (tmp_path / 'file').touch()
  (tmp_path / 'nowhere').symlink_to(tmp_path / 'missing' / 'folder')
  before = sorted(tmp_path.iterdir())
  with pytest.raises(UserError, match=words):
    output.check_output(tmp_path / name)
  assert sorted(tmp_path.iterdir()) == before


@pytest.mark.skipif(sys.platform != 'linux', reason='/proc is of Linux')
@pytest.mark.parametrize('name', ['x.png', 'samples'])
def test_a_folder_that_takes_no_files(name):
  with pytest.raises(UserError, match=f'/proc/{name} cannot be written: '):
    output.check_output(Path('/proc') / name)


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write anywhere')
def test_a_folder_without_permission(tmp_path):
  tmp_path.chmod(0o500)
  with pytest.raises(UserError, match='cannot be written: Permission denied'):
    output.check_output(tmp_path / 'x.png')


@pytest.mark.parametrize(
  'name, fps, words',
  [
    ('x.gif', 60, '--fps=60: a .gif has at most 50 frames per second'),
    ('x.webp', 91, 'at most 90'),
    ('x.png', 0, '--fps=0: it must be above 0'),
    ('x.mp4', float('nan'), '--fps=nan'),
    ('x.mp4', float('inf'), '--fps=inf'),
  ],
)
def test_frames_per_second(tmp_path, name, fps, words):
  with pytest.raises(UserError, match=words):
    output.check_output(tmp_path / name, fps)


def test_numbered_images_are_not_mixed_with_older_ones(tmp_path):
  write_images(tmp_path, planned(3))
  with pytest.raises(UserError, match=r'3 numbered images \(000000.png to 000002.png'):
    output.check_output(tmp_path)
  output.check_output(tmp_path, existing='append')
  write_images(tmp_path, planned(2, value=90), existing='append')
  assert list(values(tmp_path).values()) == [7, 8, 9, 90, 91]
  output.check_output(tmp_path, existing='replace')
  write_images(tmp_path, planned(1, value=50), existing='replace')
  assert values(tmp_path) == {'000000.png': 50}


def test_replace_removes_only_what_the_command_wrote(tmp_path):
  (tmp_path / 'notes.txt').touch()
  write_images(tmp_path, planned(1))
  output.check_output(tmp_path, existing='replace')
  (tmp_path / '12.PNG').touch()
  with pytest.raises(UserError, match='holds 12.PNG, which gan_jax.sample did not'):
    output.check_output(tmp_path, existing='replace')
  with pytest.raises(UserError, match='2 numbered images'):
    output.check_output(tmp_path)


def test_append_is_for_folders(tmp_path):
  with pytest.raises(UserError, match='--append is for folders'):
    output.check_output(tmp_path / 'x.png', existing='append')
