"""The explorer's desk: a choice, its command line and its picture are one."""

import dataclasses
import importlib
import io
import shlex
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from gan_jax import UserError, sample
from gan_jax.config import parse_config
from gan_jax.explore import __main__ as command
from gan_jax.explore.session import (
  SAVED,
  Capabilities,
  ControlValues,
  ExplorerSession,
  path_inside,
)
from gan_jax.importers import __main__ as importers
from gan_jax.importers import sources
from gan_jax.runtime.mesh import make_mesh
from gan_jax.sampling import samplers
from gan_jax.sampling.options import SamplingOptions
from gan_jax.training import trainer

GOLDEN = Path(__file__).parents[1] / 'golden'


def trained(name, folder, **model):
  config = importlib.import_module(f'configs.{name}').get_config('tiny').to_dict()
  config['model'] |= model
  trainer.Trainer(parse_config(config), folder).run()
  return folder


@pytest.fixture(scope='module')
def styled(tmp_path_factory):
  return trained('stylegan_lsun', tmp_path_factory.mktemp('style'), truncated_layers=2)


@pytest.fixture(scope='module')
def classes(tmp_path_factory):
  folder = trained('biggan_digits', tmp_path_factory.mktemp('digits'))
  flags = [f'--workdir={folder}', f'--export={folder}/gen.stablehlo', '--standing=1']
  sample.main(flags)
  return folder


def written(line):
  """What the command line of a picture writes."""
  words = shlex.split(line)
  assert words[:3] == ['python', '-m', 'gan_jax.sample']
  sample.main(words[3:])
  (out,) = [word.removeprefix('--out=') for word in words if word.startswith('--out=')]
  with open(out, 'rb') as f:
    return f.read()


CHOICES = [
  ControlValues(seed=5, layers=2),
  ControlValues(seed=5, psi=0.3, truncation=0.5, layers=4, noise=0.25),
  ControlValues('variations', seed=3, count=5, psi=0.7, layers=2),
  ControlValues('mixing', seed=3, other=9, styles=('middle', 'coarse'), layers=2),
  ControlValues('between', pins=(4, 8, 2), frames=5, at=7, layers=2),
]


@pytest.mark.parametrize('choice', CHOICES, ids=lambda choice: choice.mode)
def test_the_command_writes_the_very_picture(styled, choice):
  desk = ExplorerSession(styled)
  source = desk.select()
  request = desk.shown(desk.abilities(source), choice)
  png = desk.draw(source, request)
  assert png == written(desk.command(source, request, 'a.png'))
  assert desk.save(source, request, 'b.png').read_bytes() == png


@pytest.mark.parametrize('name', ['', 'gen.stablehlo'])
@pytest.mark.parametrize('draft', [False, True])
def test_the_command_of_a_class_and_of_an_exported_generator(classes, name, draft):
  desk = ExplorerSession(classes)
  source = desk.select(name)
  able = desk.abilities(source)
  assert len(able.classes) == 10 and able.standing == (not name) and not able.styled
  choice = ControlValues('variations', seed=1, label=3, count=4, psi=0.8)
  request = desk.shown(able, choice, draft)
  assert ('--standing=1' in request.flags) == (draft and not name)
  assert desk.draw(source, request) == written(desk.command(source, request, 'c.png'))
  other = desk.shown(able, dataclasses.replace(choice, label=4), draft)
  assert desk.draw(source, request) != desk.draw(source, other)


def numbers(n):
  return tuple(str(i) for i in range(n))


PUBLISHED = {  # what can be drawn of each kind of source
  'progan_stylegan/progan_tiny.pkl': Capabilities(numbers(3)),
  'progan_stylegan/stylegan_tiny.pkl': Capabilities(
    styled=True, layers=6, cut=6, bands=('coarse', 'middle', 'fine')
  ),
  'biggan_metrics/checkpoints/exp_zip': Capabilities(numbers(10), standing=True),
  'biggan_metrics/checkpoints/hf_zip': Capabilities(numbers(5)),  # with its statistics
}


@pytest.mark.parametrize('name', PUBLISHED)
def test_the_command_of_published_weights(name, tmp_path):
  importers.main([str(GOLDEN / name), f'--workdir={tmp_path}'])
  desk = ExplorerSession(tmp_path)
  (source,) = desk.sources()
  able = desk.abilities(source)
  assert able == PUBLISHED[name]
  choice = ControlValues('variations', seed=3, count=3, psi=0.7, layers=3)
  request = desk.shown(able, choice)
  assert desk.draw(source, request) == written(desk.command(source, request, 'a.png'))


def test_published_weights_draw_what_is_in_their_file(tmp_path):
  file = GOLDEN / 'progan_stylegan' / 'progan_tiny.pkl'
  importers.main([str(file), f'--workdir={tmp_path}'])
  desk = ExplorerSession(tmp_path)
  source = desk.select()
  request = desk.shown(desk.abilities(source), ControlValues(seed=7, label=2))
  read, seeds = sources.read_published(file), np.array([7], np.uint32)
  draw = samplers.make_sampler(read.gan, make_mesh(jax.devices()[:1]))
  z = samplers.latents(seeds, read.gan.dim_z)
  classes = np.eye(3, dtype=np.float32)[[2]]
  (want,) = draw(read.ema, z, classes, 1.0, seeds, 0.5)  # it was left half faded in
  with Image.open(io.BytesIO(desk.draw(source, request))) as image:
    got = np.asarray(image).astype(int)
  assert got.shape == want.shape and np.ptp(got) > 100
  assert np.abs(got - np.asarray(want)).max() <= 1


def test_controls_move_the_picture_and_compile_nothing(styled):
  desk = ExplorerSession(styled)
  source = desk.select()
  able = desk.abilities(source)
  assert (able.styled, able.layers, able.cut) == (True, 4, 2)
  draw = lambda choice: desk.draw(source, desk.shown(able, choice))
  first = draw(ControlValues(layers=2))
  programs = desk._open(source)._compiled
  built = programs.cache_info().currsize
  others = [draw(choice) for choice in CHOICES]
  others += [
    draw(ControlValues(layers=2, noise=0.0)),
    draw(ControlValues(layers=2, psi=0.0)),
  ]
  others.append(draw(ControlValues(layers=3, psi=0.0)))
  assert draw(ControlValues(layers=0, psi=0.0)) == first  # psi acts on no layer
  assert len({first, *others}) == 1 + len(others)
  assert programs.cache_info().currsize == built
  generator = desk._open(source)
  synthesize = generator._compiled(
    importlib.import_module('gan_jax.sampling.samplers').make_synthesizer, 8, False
  )
  assert synthesize._cache_size() == 1


def test_a_film_goes_from_pin_to_pin(styled):
  desk = ExplorerSession(styled)
  source = desk.select()
  able = desk.abilities(source)
  film = desk.request(able, ControlValues('between', pins=(4, 8), frames=6, layers=2))
  path = desk.save(source, film, 'film.webp')
  assert path.parent.name == SAVED and path.stat().st_size > 100
  assert film.only is None and film.frames == 6


def test_names_of_classes_come_from_the_run(classes):
  desk = ExplorerSession(classes)
  assert desk.abilities(desk.select()).classes[3] == '3 3'
  (classes / 'run.json').rename(classes / 'hidden')
  try:
    assert ExplorerSession(classes).abilities(desk.select()).classes[3] == '3'
  finally:
    (classes / 'hidden').rename(classes / 'run.json')


@pytest.mark.parametrize('name', ['../x.png', '/etc/x.png', 'a/../../../x.png'])
def test_nothing_is_written_outside(classes, name):
  desk = ExplorerSession(classes)
  source = desk.select()
  with pytest.raises(UserError, match='lies outside'):
    desk.save(source, SamplingOptions(seeds='0'), name)


def test_links_lead_nowhere(tmp_path, classes):
  outside = tmp_path / 'outside'
  outside.mkdir()
  workdir = tmp_path / 'run'
  workdir.mkdir()
  (workdir / 'gen.stablehlo').symlink_to(classes / 'gen.stablehlo')
  shutil.copy(classes / 'gen.stablehlo', workdir / 'own.stablehlo')
  (workdir / SAVED).symlink_to(outside)
  desk = ExplorerSession(workdir)
  with pytest.raises(UserError, match='gen.stablehlo lies outside'):
    desk.abilities(desk.select('gen.stablehlo'))
  with pytest.raises(UserError, match=f'{SAVED} lies outside'):
    desk.save(desk.select('own.stablehlo'), SamplingOptions(seeds='0'), 'x.png')
  assert not list(outside.iterdir())


@pytest.mark.parametrize('name', ['../gen.stablehlo', '/etc/passwd'])
def test_generators_elsewhere_are_refused(classes, name):
  with pytest.raises(UserError, match='lies outside'):
    ExplorerSession(classes).select(name)
  with pytest.raises(UserError, match='has no checkpoint 77'):
    ExplorerSession(classes).select('checkpoint 77')


def test_inside(tmp_path):
  (tmp_path / 'link').symlink_to(tmp_path / 'a')
  for name in ('a/b', 'c/../a/b', 'link/b'):
    assert path_inside(tmp_path, name) == tmp_path.resolve() / 'a' / 'b'


@pytest.mark.parametrize(
  'choice, words',
  [
    (ControlValues('mixing', styles=()), 'are taken: coarse, middle'),
    (ControlValues('between', pins=(1,)), 'two seeds or more'),
  ],
)
def test_what_has_to_be_chosen_first(styled, choice, words):
  desk = ExplorerSession(styled)
  with pytest.raises(UserError, match=words):
    desk.shown(desk.abilities(desk.select()), choice)


def test_endings(styled):
  desk = ExplorerSession(styled)
  with pytest.raises(UserError, match='end it in .png'):
    desk.save(desk.select(), SamplingOptions(seeds='0'), 'x.npz')


def test_a_folder_without_generators(tmp_path):
  with pytest.raises(UserError, match='neither checkpoints nor'):
    ExplorerSession(tmp_path)
  (tmp_path / 'gen.stablehlo').write_bytes(b'something else')
  with pytest.raises(UserError, match='no generator that'):
    desk = ExplorerSession(tmp_path)
    desk.abilities(desk.select())


def test_it_listens_to_this_machine_alone_unless_asked():
  assert command.parser().parse_args(['--workdir=x']).host == '127.0.0.1'


@pytest.mark.parametrize(
  'request_',
  [
    SamplingOptions(),
    SamplingOptions(seeds='1,2', psi=0.5, truncation=0.7, grid=True, only=3, res=4),
    SamplingOptions(
      mix='1-3', mix_layers='coarse+fine,2-3', noise='off', noise_strength=0.5
    ),
    SamplingOptions(
      interpolate='w', frames=3, truncated_layers=0, standing=0, columns=3
    ),
  ],
)
def test_a_request_and_its_flags_are_two_forms_of_one_thing(request_):
  parsed = sample.asked(sample.parser().parse_args(request_.flags))
  assert parsed == request_


def test_batches_change_no_picture(classes, tmp_path):
  pages = []
  for batch in (8, 16):
    out = tmp_path / f'{batch}.npz'
    flags = ['--seeds=0-15', '--truncation=0.5', f'--batch={batch}', f'--out={out}']
    sample.main([f'--workdir={classes}', *flags])
    with np.load(out) as z:
      pages.append(z['images'].astype(int))
  assert np.abs(pages[0] - pages[1]).max() <= 1
