"""Explorer sessions: control values, the command line and the image agree."""

import dataclasses
import io
import logging
import shlex
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from gan_jax import UserError, sample
from gan_jax.explore import __main__ as command
from gan_jax.explore import photographs
from gan_jax.explore.controls import Capabilities, ControlValues
from gan_jax.explore.photographs import CancelledError, Status, encode_png
from gan_jax.explore.session import SAVE_FOLDER, ExplorerSession, path_inside
from gan_jax.importers import __main__ as importers
from gan_jax.importers import sources
from gan_jax.project import spaces
from gan_jax.project.options import ProjectOptions
from gan_jax.runtime.mesh import make_mesh
from gan_jax.sampling import samplers
from gan_jax.sampling.directions import load_directions, save_directions
from gan_jax.sampling.options import SamplingOptions

GOLDEN = Path(__file__).parents[1] / 'golden'


@pytest.fixture(scope='module')
def exported_run(digits_run, tmp_path_factory):
  """A copy of the digits run, with the exported generator gen.stablehlo."""
  folder = tmp_path_factory.mktemp('exported') / 'run'
  shutil.copytree(digits_run, folder)
  flags = [f'--workdir={folder}', f'--export={folder}/gen.stablehlo', '--standing=1']
  sample.main(flags)
  return folder


@pytest.fixture(scope='module')
def stylegan_session(stylegan_run, tmp_path_factory):
  """A session on a copy of the StyleGAN run, as it saves into the folder."""
  folder = tmp_path_factory.mktemp('explored') / 'run'
  shutil.copytree(stylegan_run, folder)
  return ExplorerSession(folder)


def written_file(line):
  """Runs a command line; the bytes of the file that it writes."""
  words = shlex.split(line)
  assert words[:3] == ['python', '-m', 'gan_jax.sample']
  sample.main(words[3:])
  (out,) = [word.removeprefix('--out=') for word in words if word.startswith('--out=')]
  return Path(out).read_bytes()


def values(mode='single', **changes):
  """Control values of a StyleGAN whose psi acts on 2 layers by default."""
  return ControlValues(**{'mode': mode, 'truncated_layers': 2} | changes)


VALUES = [
  values(seed=5),
  values(seed=5, psi=0.3, truncation=0.5, truncated_layers=4, noise_strength=0.25),
  values('grid', seed=3, n_seeds=5, psi=0.7),
  values('mixing', seed=3, style_seed=9, styles=('middle', 'coarse')),
  values('interpolation', pinned_seeds=(4, 8, 2), frames=5, frame=7),
  values('interpolation', pinned_seeds=(4, 8), frames=5, frame=99, loop=True),
]


@pytest.mark.parametrize('controls', VALUES, ids=lambda controls: controls.mode)
def test_the_command_line_writes_the_displayed_image(stylegan_session, controls):
  session = stylegan_session
  choice = session.select()
  options = session.displayed_options(session.capabilities(choice), controls)
  png = session.render_png(choice, options)
  assert png == written_file(session.command_line(choice, options, 'a.png'))
  assert session.save(choice, options, 'b.png').read_bytes() == png


@pytest.mark.parametrize('name', ['', 'gen.stablehlo'])
@pytest.mark.parametrize('draft', [False, True])
def test_labels_of_trained_and_exported_generators(exported_run, name, draft):
  session = ExplorerSession(exported_run)
  choice = session.select(name)
  capabilities = session.capabilities(choice)
  assert len(capabilities.class_names) == 10 and not capabilities.style_based
  assert capabilities.standing_statistics == (not name)
  controls = ControlValues('grid', seed=1, label=3, n_seeds=4, psi=0.8)
  options = session.displayed_options(capabilities, controls, draft)
  assert ('--standing=1' in options.flags) == (draft and not name)
  png = session.render_png(choice, options)
  assert png == written_file(session.command_line(choice, options, 'c.png'))
  controls = dataclasses.replace(controls, label=4)
  other = session.displayed_options(capabilities, controls, draft)
  assert png != session.render_png(choice, other)


def numbers(n):
  return tuple(str(i) for i in range(n))


PUBLISHED = {
  'progan_stylegan/progan_tiny.pkl': Capabilities(numbers(3), spaces=('z',)),
  'progan_stylegan/stylegan_tiny.pkl': Capabilities(
    style_based=True,
    psi=0.7,
    n_layers=6,
    truncated_layers=6,
    style_ranges=('coarse', 'middle', 'fine'),
    spaces=('w', 'w+', 'z'),
  ),
  'biggan_metrics/checkpoints/exp_zip': Capabilities(
    numbers(10), standing_statistics=True, spaces=('z',)
  ),
  # Its file has the batch statistics of each truncation.
  'biggan_metrics/checkpoints/hf_zip': Capabilities(numbers(5), spaces=('z',)),
}


@pytest.mark.parametrize(
  'name',
  [pytest.param(n, marks=[pytest.mark.slow] * n.endswith('zip')) for n in PUBLISHED],
)
def test_capabilities_and_command_line_of_published_weights(name, tmp_path):
  importers.main([str(GOLDEN / name), f'--workdir={tmp_path}'])
  session = ExplorerSession(tmp_path)
  (choice,) = session.choices()
  capabilities = session.capabilities(choice)
  assert capabilities == PUBLISHED[name]
  controls = ControlValues('grid', seed=3, n_seeds=3, psi=0.7, truncated_layers=3)
  options = session.displayed_options(capabilities, controls)
  png = session.render_png(choice, options)
  assert png == written_file(session.command_line(choice, options, 'a.png'))


def test_images_of_published_weights_are_those_of_their_file(tmp_path):
  file = GOLDEN / 'progan_stylegan' / 'progan_tiny.pkl'
  importers.main([str(file), f'--workdir={tmp_path}'])
  session = ExplorerSession(tmp_path)
  choice = session.select()
  capabilities = session.capabilities(choice)
  controls = ControlValues(seed=7, label=2)
  options = session.displayed_options(capabilities, controls)
  published, seeds = sources.read_published(file), np.array([7], np.uint32)
  draw = samplers.make_sampler(published.gan, make_mesh(jax.devices()[:1]))
  z = samplers.latents(seeds, published.gan.dim_z)
  classes = np.eye(3, dtype=np.float32)[[2]]
  # The published checkpoint is half faded in.
  (want,) = draw(published.ema, z, classes, 1.0, seeds, 0.5)
  with Image.open(io.BytesIO(session.render_png(choice, options))) as image:
    got = np.asarray(image).astype(int)
  assert got.shape == want.shape and np.ptp(got) > 100
  assert np.abs(got - np.asarray(want)).max() <= 1


def test_controls_change_the_image_and_compile_nothing(stylegan_session, caplog):
  session = stylegan_session
  choice = session.select()
  capabilities = session.capabilities(choice)
  assert capabilities.style_based
  assert (capabilities.n_layers, capabilities.truncated_layers) == (4, 2)

  def draw(controls):
    options = session.displayed_options(capabilities, controls)
    with Image.open(io.BytesIO(session.render_png(choice, options))) as image:
      return image.tobytes()

  first = draw(values())
  changes = [
    *VALUES,
    values(noise_strength=0.0),
    values(psi=0.0),
    values(psi=0.0, truncated_layers=3),
  ]
  with jax.log_compiles(), caplog.at_level(logging.WARNING):
    others = [draw(controls) for controls in changes]
    assert draw(values(psi=0.0, truncated_layers=0)) == first  # psi acts on no layer
  assert len({first, *others}) == 1 + len(others)
  assert not [r.getMessage() for r in caplog.records if 'Compiling' in r.getMessage()]


@pytest.fixture(scope='module')
def photograph(stylegan_session):
  """The name of a photograph that was projected in two steps."""
  pixels = np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)
  status = Status()
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(spaces, 'SAMPLES', 64)
    session, options = stylegan_session, ProjectOptions(steps=2, loss='pixels')
    args = session.select(), 'my cat!.jpg', encode_png(pixels), options, status
    name = session.project(*args)
  assert status.text.startswith('step 2 of 2, pixels 0.') and status.share == 1
  sides = []
  for png in (status.target, status.preview):
    with Image.open(io.BytesIO(png)) as image:
      sides.append(image.size)
  assert sides == [(8, 8)] * 2
  return name


@pytest.mark.parametrize(
  'controls',
  [
    values(psi=1.0, strengths={'sefa0': 1.5, 'sefa1': 0.0}),
    values(psi=0.5),
    values('mixing', psi=1.0, style_seed=9, styles=('coarse',), strengths={'sefa1': 2}),
  ],
  ids=['moved', 'truncated', 'mixed'],
)
def test_the_command_line_writes_a_projected_photograph(
  stylegan_session, photograph, controls
):
  session, choice = stylegan_session, stylegan_session.select()
  assert photograph == 'my_cat' and photograph in session.photographs(choice)
  controls = dataclasses.replace(controls, photograph=photograph)
  capabilities = session.capabilities(choice)
  options = session.displayed_options(capabilities, controls)
  png = session.render_png(choice, options)
  line = session.command_line(choice, options, 'a.png')
  assert f'--latents={session.workdir}/explored/my_cat.npz' in line
  assert ('--direction=sefa0:1.5 ' in line) == ('sefa0' in controls.strengths)
  assert ('--psi=1.0' in line) == (controls.mode == 'mixing')  # its columns are seeds
  assert png == written_file(line)
  seed = dataclasses.replace(controls, photograph='')
  assert png != session.render_png(
    choice, session.displayed_options(capabilities, seed)
  )


def test_a_cancelled_projection_leaves_nothing(stylegan_session, photograph):
  session, status = stylegan_session, Status()
  before = session.photographs(session.select())
  status.cancel()
  args = session.select(), 'my cat.png', encode_png(np.zeros((8, 8, 3), np.uint8))
  with pytest.raises(CancelledError):
    session.project(*args, ProjectOptions(loss='pixels'), status)
  with pytest.raises(UserError, match='^x.png is not an image .*: give an image'):
    session.project(session.select(), 'x.png', b'text', ProjectOptions(), Status())
  assert session.photographs(session.select()) == before == [photograph]
  assert (
    photographs.free_name(session.workdir / SAVE_FOLDER, 'my cat.png') == 'my_cat_2'
  )


def test_a_photograph_has_its_class_in_w_but_beside_z(exported_run):
  session = ExplorerSession(exported_run)
  controls = ControlValues(label=1, photograph='me')
  names, classes = ('0 cat', '1 dog'), []
  for is_style in (False, True):
    capabilities = Capabilities(names, style_based=is_style, psi=0.7)
    classes.append(session.sampling_options(capabilities, controls).classes)
  assert classes == ['1', '']
  grid = dataclasses.replace(controls, mode='grid')
  assert not session.sampling_options(capabilities, grid).latents
  with pytest.raises(UserError, match='lies outside'):
    session.photograph_file('../x')


def test_directions_are_named_and_saved(stylegan_session):
  session, choice = stylegan_session, stylegan_session.select()
  session.directions_file.unlink(missing_ok=True)
  names = session.directions(choice)
  assert names == ['sefa0', 'sefa1', 'sefa2', 'sefa3']
  assert not session.directions_file.exists()
  session.name_direction(choice, 'sefa1', 'smile')
  assert session.directions(choice)[:2] == ['sefa0', 'smile']
  saved = load_directions(session.directions_file, '').by_name
  np.testing.assert_array_equal(saved['smile'].vector, saved['sefa1'].vector)
  for name, words in (
    ('sefa0', 'another direction has'),
    ('9', 'begins with a letter'),
  ):
    with pytest.raises(UserError, match=words):
      session.name_direction(choice, 'smile', name)
  session.name_direction(choice, 'smile', 'sefa1')
  assert session.directions(choice) == ['sefa0', 'sefa1', 'sefa2', 'sefa3', 'smile']


def test_directions_of_another_file(stylegan_session, tmp_path):
  session = ExplorerSession(stylegan_session.workdir, directions=tmp_path / 'd.npz')
  choice = session.select()
  with pytest.raises(UserError, match='--directions=.*d.npz: there is no such file'):
    command.check_directions(session, choice)
  session.name_direction(choice, 'sefa0', 'up')
  command.check_directions(session, choice)
  controls = values(strengths={'up': -1})
  options = session.displayed_options(session.capabilities(choice), controls)
  line = session.command_line(choice, options, 'a.png')
  assert f'--direction=up:-1 --directions={tmp_path}/d.npz' in line
  found = load_directions(tmp_path / 'd.npz', '')
  save_directions(tmp_path / 'd.npz', found._replace(model='biggan-8'))
  with pytest.raises(UserError, match='directions of another model, biggan-8'):
    command.check_directions(session, choice)


def test_an_interpolation_is_saved_with_all_frames(stylegan_session):
  session = stylegan_session
  choice = session.select()
  controls = values('interpolation', pinned_seeds=(4, 8), frames=6)
  options = session.sampling_options(session.capabilities(choice), controls)
  path = session.save(choice, options, 'morph.webp')
  assert path.parent.name == SAVE_FOLDER
  with Image.open(path) as animation:
    assert animation.n_frames == 7  # with both seeds
  assert options.only is None and options.frames == 6
  controls = dataclasses.replace(controls, loop=True, frame=99)
  options = session.displayed_options(session.capabilities(choice), controls)
  assert options.loop and options.only == 11  # the last before the first seed again


def test_class_names_come_from_the_run(exported_run):
  session = ExplorerSession(exported_run)
  assert session.capabilities(session.select()).class_names[3] == '3 3'
  (exported_run / 'run.json').rename(exported_run / 'hidden')
  try:
    unnamed = session.capabilities(session.select())
    assert unnamed.class_names[3] == '3'
  finally:
    (exported_run / 'hidden').rename(exported_run / 'run.json')


@pytest.mark.parametrize(
  'name', ['../x.png', '/etc/x.png', 'a/../../../x.png', '~/x.png']
)
def test_nothing_is_written_outside(exported_run, name):
  session = ExplorerSession(exported_run)
  with pytest.raises(UserError, match='lies outside'):
    session.save(session.select(), SamplingOptions(seeds='0'), name)


def test_the_generator_in_the_package_saves_elsewhere(exported_run, tmp_path):
  session = ExplorerSession(exported_run, results=tmp_path)
  choice = session.select('gen.stablehlo')
  path = session.save(choice, SamplingOptions(seeds='0'), 'x.png')
  assert path == tmp_path / SAVE_FOLDER / 'x.png' and path.exists()
  line = session.command_line(choice, SamplingOptions(seeds='0'), 'x.png')
  assert line.endswith(f'--out={path}')
  assert session.photograph_file('me') == path.with_name('me.npz')


def test_symbolic_links_do_not_lead_outside(tmp_path, exported_run):
  outside = tmp_path / 'outside'
  outside.mkdir()
  workdir = tmp_path / 'run'
  workdir.mkdir()
  (workdir / 'gen.stablehlo').symlink_to(exported_run / 'gen.stablehlo')
  shutil.copy(exported_run / 'gen.stablehlo', workdir / 'own.stablehlo')
  (workdir / SAVE_FOLDER).symlink_to(outside)
  session = ExplorerSession(workdir)
  with pytest.raises(UserError, match='gen.stablehlo lies outside'):
    session.capabilities(session.select('gen.stablehlo'))
  with pytest.raises(UserError, match=f'{SAVE_FOLDER} lies outside'):
    session.save(session.select('own.stablehlo'), SamplingOptions(seeds='0'), 'x.png')
  assert not list(outside.iterdir())


@pytest.mark.parametrize('name', ['../gen.stablehlo', '/etc/passwd'])
def test_generators_outside_the_workdir_are_refused(exported_run, name):
  session = ExplorerSession(exported_run)
  with pytest.raises(UserError, match='lies outside'):
    session.select(name)
  with pytest.raises(UserError, match='has no checkpoint 77'):
    session.select('checkpoint 77')


def test_paths_inside_a_folder(tmp_path):
  (tmp_path / 'link').symlink_to(tmp_path / 'a')
  for name in ('a/b', 'c/../a/b', 'link/b'):
    assert path_inside(tmp_path, name) == tmp_path.resolve() / 'a' / 'b'


@pytest.mark.parametrize(
  'controls, words',
  [
    (ControlValues('mixing', styles=()), 'range of styles: coarse, middle'),
    (ControlValues('interpolation', pinned_seeds=(1,)), 'at least two seeds'),
  ],
)
def test_controls_that_need_a_value_first(stylegan_session, controls, words):
  capabilities = stylegan_session.capabilities(stylegan_session.select())
  with pytest.raises(UserError, match=words):
    stylegan_session.displayed_options(capabilities, controls)


def test_file_name_extensions(stylegan_session):
  choice = stylegan_session.select()
  with pytest.raises(UserError, match='end it in .png'):
    stylegan_session.save(choice, SamplingOptions(seeds='0'), 'x.npz')


def test_raw_weights_and_their_command_line(exported_run):
  session = ExplorerSession(exported_run, ema=False)
  choice = session.select()
  options = SamplingOptions(seeds='3', standing=0)
  line = session.command_line(choice, options, 'raw.png')
  assert '--raw' in line
  png = session.render_png(choice, options)
  assert png == written_file(line)
  assert png != ExplorerSession(exported_run).render_png(choice, options)
  program = session.select('gen.stablehlo')
  assert '--raw' not in session.command_line(program, SamplingOptions(), 'a.png')


def test_a_label_that_is_the_name_of_another_class(exported_run):
  capabilities = Capabilities(('0 1', '1 2', '2 3'))
  options = ExplorerSession(exported_run).sampling_options(
    capabilities, ControlValues(label=1)
  )
  assert options.classes == '#1'


def test_a_folder_without_generators(tmp_path):
  with pytest.raises(UserError, match='neither checkpoints nor'):
    ExplorerSession(tmp_path)
  (tmp_path / 'gen.stablehlo').write_bytes(b'something else')
  session = ExplorerSession(tmp_path)
  with pytest.raises(UserError, match='no generator that'):
    session.capabilities(session.select())


def test_the_server_listens_to_this_machine_only_by_default():
  assert command.make_parser().parse_args(['--workdir=x']).host == '127.0.0.1'


def test_a_home_folder_as_workdir(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  assert (
    command.make_parser().parse_args(['--workdir=~/run']).workdir == tmp_path / 'run'
  )
