"""The command: the files that it writes, and mistakes in its flags."""

import importlib
import shutil

import numpy as np
import pytest
from PIL import Image

from gan_jax import UserError, sample
from gan_jax.storage import checkpoint, files


def pixels(path):
  with Image.open(path) as image:
    return np.asarray(image)


def test_files(digits_run, tmp_path):
  run = lambda *flags: sample.main([f'--workdir={digits_run}', *flags])
  run(f'--out={tmp_path}/a.npz', '--num=20', '--truncation=0.5', '--standing=2')
  with np.load(tmp_path / 'a.npz') as z:
    assert z['images'].shape == (20, 16, 16, 1) and z['images'].dtype == np.uint8
    assert z['labels'].dtype == np.int32 and set(z['labels']) <= set(range(10))
    assert z['seeds'].tolist() == list(range(20))
    first = z['images'][3, :, :, 0]
  run(f'--out={tmp_path}/many', '--seeds=3', '--truncation=0.5', '--standing=2')
  np.testing.assert_array_equal(pixels(tmp_path / 'many' / '000000.png'), first)
  run(f'--out={tmp_path}/grid.png', '--grid', '--seeds=0-4', '--standing=0')
  assert pixels(tmp_path / 'grid.png').shape == (10 * 18 + 2, 5 * 18 + 2)
  run(
    f'--out={tmp_path}/z.png', '--interpolate=z', '--seeds=1,2,3', '--frames=6',
    '--classes=4', '--standing=0',
  )  # fmt: skip
  assert pixels(tmp_path / 'z.png').shape == (3 * 18 + 2, 6 * 18 + 2)
  written = {p.name for p in tmp_path.iterdir()}
  assert written == {'a.npz', 'grid.png', 'many', 'z.png'}


@pytest.mark.parametrize('kind', ['gif', 'webp', 'mp4'])
def test_animations(stylegan_run, tmp_path, kind):
  out = tmp_path / f'morph.{kind}'
  flags = ['--interpolate=w', '--seeds=1,2', '--frames=4', '--fps=8']
  sample.main([f'--workdir={stylegan_run}', f'--out={out}', *flags])
  if kind == 'mp4':
    import imageio.v3 as iio

    assert iio.imread(out, plugin='pyav').shape == (5, 256, 256, 3)
    return
  with Image.open(out) as animation:
    animation.load()
    assert (animation.n_frames, animation.size) == (5, (256, 256))
    assert animation.info['duration'] in (
      120,
      125,
    )  # .gif: in 1/100 s


def test_batch_size_does_not_change_images(digits_run, tmp_path):
  images = []
  for batch in (8, 16):
    out = tmp_path / f'{batch}.npz'
    flags = ['--seeds=0-15', '--truncation=0.5', f'--batch={batch}', f'--out={out}']
    sample.main([f'--workdir={digits_run}', *flags])
    with np.load(out) as z:
      images.append(z['images'].astype(int))
  assert np.abs(images[0] - images[1]).max() <= 1


@pytest.mark.parametrize(
  'flags, words',
  [
    (['--out=x.jpg'], 'x.jpg'),
    (['--out=x.png', '--seeds=a'], '--seeds=a'),
    (['--out=x.png', '--classes=10'], 'classes are 0-9'),
    (['--out=x.png', '--classes=nine'], "no class is named 'nine'"),
    (['--out=x.png', '--truncation=0'], 'above 0'),
    (['--out=x.png', '--standing=-1'], '--standing=-1: allowed are 0 to'),
    (['--out=x.png', '--checkpoint=77'], 'no checkpoint 77: there are 2'),
    (['--out=x.png', '--interpolate=z', '--seeds=1'], 'two seeds'),
    (['--out=x.png', '--only=64'], '--only=64: images are 0-63'),
  ],
)
def test_mistakes_with_a_biggan(digits_run, flags, words):
  with pytest.raises(UserError, match=words):
    sample.main([f'--workdir={digits_run}', *flags])


@pytest.mark.parametrize(
  'flags, words',
  [
    (['--res=16'], '--res=16: this run has come to 8'),
    (['--res=6'], '--res=6: this run has come to 8'),
    (['--mix=0-3', '--mix_layers=rough'], '--mix_layers=rough: give numbers'),
    (['--mix=0-3', '--mix_layers=2-9'], 'layers are 0-3'),
    (['--mix=0-3', '--interpolate=w'], '--mix and --interpolate exclude each other'),
    (['--mix=0-3', '--mix_layers=fine'], 'a model of 8 pixels has no fine'),
    (['--program=x.stablehlo'], '--workdir of a run or --program'),
    (
      ['--mix=0-3', '--mix_layers=coarse', '--only=1'],
      'not possible for a style mixing grid',
    ),
    (['--grid'], '--grid: this model has no classes'),
    (['--out=x.avi'], 'end it in .png, .npz, .gif, .webp, .mp4'),
  ],
)
def test_mistakes_with_a_stylegan(stylegan_run, tmp_path, flags, words):
  with pytest.raises(UserError, match=words):
    sample.main([f'--workdir={stylegan_run}', f'--out={tmp_path}/x.png', *flags])
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('flag', ['--mix=1', '--noise=off', '--interpolate=w'])
def test_options_that_only_a_stylegan_has(flag, tmp_path):
  config = importlib.import_module('configs.biggan_digits').get_config('tiny').to_dict()
  files.write_json(tmp_path / 'config.json', config)
  with pytest.raises(UserError, match='is for a StyleGAN'):
    sample.main([f'--workdir={tmp_path}', '--out=x.png', flag])


def test_a_folder_that_is_no_run(tmp_path):
  with pytest.raises(UserError, match='not the folder of a run'):
    sample.main([f'--workdir={tmp_path}', '--out=x.png'])
  with pytest.raises(UserError, match='no checkpoints'):
    checkpoint.restore_subtrees(tmp_path, {})


def test_home_folders_in_path_flags(digits_run, tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  (tmp_path / 'run').symlink_to(digits_run)
  flags = ['--workdir=~/run', '--out=~/new/A.PNG', '--num=2', '--standing=0']
  sample.main([*flags, '--classes=3'])
  assert pixels(tmp_path / 'new' / 'A.PNG').shape == (20, 2 * 18 + 2)
  args = sample.make_parser().parse_args(['--program=~/g.stablehlo', '--export=~/h'])
  assert (args.program, args.export) == (tmp_path / 'g.stablehlo', tmp_path / 'h')


def test_a_folder_of_an_earlier_command(digits_run, tmp_path):
  run = lambda *flags: sample.main(
    [f'--workdir={digits_run}', f'--out={tmp_path}/psi0.7', '--standing=0', *flags]
  )
  names = lambda: sorted(path.name for path in (tmp_path / 'psi0.7').iterdir())
  run('--num=3')
  with pytest.raises(UserError, match='3 numbered images'):
    run('--num=2')
  run('--num=1', '--append')
  assert names() == [f'00000{i}.png' for i in range(4)]
  run('--num=2', '--replace')
  assert names() == ['000000.png', '000001.png']


@pytest.mark.parametrize(
  'flags, words',
  [
    (['--out=x.png', '--num=0'], '--num=0: it must be above 0'),
    (['--out=x.png', '--seeds=1,9-7'], '9-7 runs from high to low'),
    (['--out=x.png', '--seeds=1', '--num=2'], '--seeds and --num exclude each other'),
    (['--out=x.gif', '--fps=100'], 'at most 50 frames per second'),
    (['--out=x.png', '--append'], '--append is for folders'),
    (['--export=x.bin'], 'x.bin: the name of an exported generator ends in .stablehlo'),
    (['--export=g.stablehlo', '--num=3'], '--num is for images'),
  ],
)
def test_mistakes_that_need_no_checkpoint(
  digits_run, tmp_path, monkeypatch, flags, words
):
  monkeypatch.chdir(tmp_path)
  shutil.copy(digits_run / 'config.json', tmp_path)
  shutil.copy(digits_run / 'run.json', tmp_path)
  with pytest.raises(UserError, match=words):
    sample.main(['--workdir=.', *flags])
  assert {path.name for path in tmp_path.iterdir()} == {'config.json', 'run.json'}


def test_raw_weights_are_those_of_a_run(tmp_path):
  with pytest.raises(UserError, match='--raw and --checkpoint are for a run'):
    sample.main(['--program=g.stablehlo', '--raw', f'--out={tmp_path}/x.png'])
