"""Published weights: files that lie, and what is made of those that do not."""

import dataclasses
import io
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest

from gan_jax import UserError, importers
from gan_jax.config import parse_config
from gan_jax.importers import __main__ as cli
from gan_jax.importers import sources
from gan_jax.sampling import export
from gan_jax.storage import checkpoint, weights
from gan_jax.storage.checkpoint import Checkpointer
from gan_jax.training.optimizers import make_optimizer
from gan_jax.training.step import flatten_kernels, init_state

GOLDEN = Path(__file__).parents[1] / 'golden'
CHECKPOINTS = GOLDEN / 'biggan_metrics' / 'checkpoints'
PICKLES = GOLDEN / 'progan_stylegan'


# ---- mutated files

ATTACKS = (
  b'cos\nsystem\nX\x04\x00\x00\x00true\x85R',
  b'cposix\nsystem\n',
  b'(X\x04\x00\x00\x00trueios\nsystem\n',
  b'cbuiltins\nexec\nX\x01\x00\x00\x001\x85R',
  b'\x8e\xff\xff\xff\xff\xff\x00\x00\x00',
  b'r\xff\xff\xff\x7f',
  b'\x82\x01',
  b'N0' * 500_000,
  b'h\x00h\x00\x86' * 40,
  b'.',
)
WATCH = """
import resource, sys
resource.setrlimit(resource.RLIMIT_CPU, (400, 400))
import jax
from pathlib import Path
from gan_jax import UserError
from gan_jax.importers import sources
for warm in sys.argv[2:]:
  sources.read_published(warm)
acts = []
def watch(event, args):
  forbidden = ('os.system', 'os.exec', 'os.posix_spawn', 'os.fork', 'subprocess.Popen',
               'pickle.find_class', 'socket.connect', 'os.remove', 'shutil.rmtree')
  if event in forbidden or event == 'open' and set(str(args[1])) & set('wax+'):
    acts.append((event, args))
sys.addaudithook(watch)
read = refused = 0
for path in sorted(Path(sys.argv[1]).iterdir()):
  try:
    sources.read_published(path)
    read += 1
  except UserError as error:
    assert str(path) in str(error), (path, error)
    refused += 1
# Not ru_maxrss, which begins with what the starting process had.
peak = Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0]
print(read, refused, len(acts), peak)
"""


def mutated(body, rng):
  """One of the ways in which a file goes, or is made to go, wrong."""
  body, at = bytearray(body), int(rng.integers(1, len(body)))
  match rng.integers(5):
    case 0:  # anywhere
      for i in rng.integers(0, len(body), rng.integers(1, 9)):
        body[i] ^= 1 << int(rng.integers(8))
    case 1:  # where the opcodes are
      for i in rng.integers(0, min(len(body), 3000), rng.integers(1, 5)):
        body[i] = int(rng.integers(256))
    case 2:
      del body[at:]
    case 3:
      at = int(rng.integers(2, min(len(body), 3000)))
      body[at:at] = ATTACKS[rng.integers(len(ATTACKS))]
    case 4:
      size = int(rng.integers(1, 200))
      body[at:at] = body[at : at + size]
  return bytes(body)


def torch_zip(path, change):
  """A file of torch.save with another pickle inside, and checksums that are right."""
  out = io.BytesIO()
  with zipfile.ZipFile(path) as z, zipfile.ZipFile(out, 'w') as new:
    for name in z.namelist():
      body = z.read(name)
      new.writestr(name, change(body) if name.endswith('data.pkl') else body)
  return out.getvalue()


def test_a_thousand_mutated_files(tmp_path, rng_seed):
  """Each is refused or read, and nothing else happens: no command, no hang.

  They are read whole, up to weights in their places.
  """
  rng = np.random.default_rng(rng_seed)
  pickles = [
    (PICKLES / f'{kind}_tiny.pkl').read_bytes() for kind in ('progan', 'stylegan')
  ]
  zipped, legacy = (CHECKPOINTS / f'exp_{k}' / 'G_ema.pth' for k in ('zip', 'legacy'))
  (tmp_path / 'files').mkdir()
  for i in range(1000):
    if i % 4 < 2:
      path = tmp_path / 'files' / f'{i}.pkl'
      path.write_bytes(mutated(pickles[i % 4], rng))
      continue
    path = tmp_path / 'files' / f'{i}' / 'G_ema.pth'
    path.parent.mkdir()
    if i % 4 == 2:
      path.write_bytes(mutated(legacy.read_bytes(), rng))
    elif rng.integers(2):
      path.write_bytes(mutated(zipped.read_bytes(), rng))
    else:
      path.write_bytes(torch_zip(zipped, lambda body: mutated(body, rng)))
  warm = [str(PICKLES / f'{kind}_tiny.pkl') for kind in ('progan', 'stylegan')]
  done = subprocess.run(
    [sys.executable, '-c', WATCH, str(tmp_path / 'files'), *warm],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr[-2000:]
  read, refused, acts, kilobytes = map(int, done.stdout.split())
  assert read + refused == 1000 and refused > 300
  assert acts == 0
  assert kilobytes < 2**20


# ---- runs


COUNTS = {  # resolution, channels, dim_z; the originals', by Module.parameters()
  'BigGAN-128': (128, 96, 120, 70_433_988, 87_982_370),
  'BigGAN-256': (256, 96, 140, 82_235_844, 99_225_890),
  'deep-128': (128, 128, 128, 50_244_484, 34_590_210),
}  # fmt: skip


@pytest.mark.parametrize('name', COUNTS)
def test_full_size_models_have_the_published_number_of_parameters(name):
  res, ch, dim_z, *want = COUNTS[name]
  kwargs = dict(resolution=res, G_ch=ch, D_ch=ch, dim_z=dim_z)
  kwargs = dict(kwargs, n_classes=1000, hier=True, G_shared=True, shared_dim=128)
  gan = importers.biggan_from_shapes(kwargs, kwargs, deep='deep' in name)
  sides = jax.eval_shape(gan.init, jax.random.key(0))
  got = [sum(x.size for x in jax.tree.leaves(side['params'])) for side in sides]
  assert got == want


def state_of(workdir, source):
  """The checkpoint of a workdir, as training would restore it."""
  run = parse_config(json.loads((workdir / 'config.json').read_text()))
  txs = make_optimizer(run.g_adam), make_optimizer(run.d_adam)
  like = jax.eval_shape(lambda: init_state(run.gan, *txs, jax.random.key(0)))
  checkpoints = Checkpointer(workdir)
  state = checkpoints.restore(checkpoints.newest(), like)
  checkpoints.close()
  return run, state


def assert_equal_trees(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_biggan_folder_becomes_a_run(tmp_path, capsys):
  folder, workdir = CHECKPOINTS / 'exp_zip', tmp_path / 'run'
  cli.main([str(folder), f'--workdir={workdir}'])
  assert '0 skipped, 0 re-initialised' in capsys.readouterr().out
  source = sources.read_published(folder)
  run, state = state_of(workdir, source)
  assert run.gan == source.gan
  assert int(state.step) == 2 and int(state.images) == 2 * 2 * 4
  for tree, want in ((state.g, source.g), (state.d, source.d), (state.ema, source.ema)):
    assert_equal_trees(tree, want)
  memory = state.g_opt[-1]  # after the orthogonal term
  assert_equal_trees(memory.nu, flatten_kernels(source.g_moments.second))
  assert int(memory.count) == 2 and int(state.d_opt.count) == 4  # 2 D steps each
  assert (run.schedule.batch, run.train.d_steps) == (4, 2)
  assert run.g_adam.ortho == 1e-4 and run.g_adam.eps == 1e-6
  assert run.gan.dim_z == 24 and run.gan.shared_dim == 8 and run.gan.sn_eps == 1e-6
  with pytest.raises(UserError, match='holds a run already'):
    cli.main([str(folder), f'--workdir={workdir}'])


def test_settings_are_told_by_the_weights():
  told = sources.biggan_settings(
    {s: weights.read_arrays(CHECKPOINTS / 'exp_zip' / f'{s}.pth') for s in ('G', 'D')}
  )
  saved = weights.read_tree(CHECKPOINTS / 'exp_zip' / 'state_dict.pth')['config']
  for name, value in saved.items():
    assert told.get(name, value) == value, name
  assert {'resolution', 'n_classes', 'dim_z', 'hier', 'G_attn', 'D_attn'} <= told.keys()


def test_another_number_of_classes_is_a_partial_import(tmp_path):
  folder = CHECKPOINTS / 'exp_zip'
  flags = [str(folder), f'--workdir={tmp_path / "run"}', '--set=n_classes=3']
  with pytest.raises(UserError, match='--partial') as found:
    cli.main(flags)
  assert 're-initialised g/params/shared/embedding' in str(found.value)
  assert not (tmp_path / 'run').exists()
  cli.main([*flags, '--partial'])
  source = sources.read_published(folder)
  run, state = state_of(tmp_path / 'run', source)
  assert run.gan.n_classes == 3
  assert state.g['params']['shared']['embedding'].shape == (3, 8)
  assert state.d['params']['embed']['embedding'].shape[0] == 3
  kept = {**state.g['params'], 'shared': source.g['params']['shared']}
  assert_equal_trees(kept, source.g['params'])
  assert not any(x.any() for x in jax.tree.leaves(state.d_opt))  # new ones


def test_a_generator_alone_is_a_partial_import(tmp_path):
  (tmp_path / 'G').mkdir()
  shutil.copy(CHECKPOINTS / 'exp_legacy' / 'G_ema.pth', tmp_path / 'G')
  flags = [str(tmp_path / 'G'), f'--workdir={tmp_path / "run"}']
  with pytest.raises(UserError, match='--partial'):
    cli.main(flags)
  cli.main([*flags, '--partial'])
  _, state = state_of(tmp_path / 'run', None)
  assert_equal_trees(state.ema, sources.read_published(tmp_path / 'G').ema)
  assert_equal_trees(state.g, state.ema)


def test_hugging_face_keeps_its_table_of_statistics(tmp_path):
  workdir = tmp_path / 'run'
  cli.main([str(CHECKPOINTS / 'hf_zip'), f'--workdir={workdir}'])
  gan = parse_config(json.loads((workdir / 'config.json').read_text())).gan
  g, _ = jax.eval_shape(gan.init, jax.random.key(0))
  restored, _ = checkpoint.restore_ema(workdir, g)
  g = restored[0] if isinstance(restored, tuple) else restored
  assert_equal_trees(g, sources.read_published(CHECKPOINTS / 'hf_zip').ema)
  state = weights.read_arrays(CHECKPOINTS / 'hf_zip' / 'pytorch_model.bin')
  config = json.loads((CHECKPOINTS / 'hf_zip' / 'config.json').read_text())
  # 0.58 and 0.94 are those whose row is not the one that arithmetic suggests.
  at = jax.jit(gan.at_truncation)
  for truncation in (0.02, 0.4, 0.58, 0.94, 0.5678, 0.333, 0.999, 1.0):
    _, want = importers.convert_huggingface(state, config, truncation)
    got = at(g, np.float32(truncation))
    for a, b in zip(
      jax.tree.leaves(got['batch_stats']),
      jax.tree.leaves(want['batch_stats']),
      strict=True,
    ):
      np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6, err_msg=str(truncation))
  assert at._cache_size() == 1


def test_a_growing_gan_goes_on_where_it_stood(tmp_path):
  workdir = tmp_path / 'run'
  cli.main([str(PICKLES / 'progan_tiny.pkl'), f'--workdir={workdir}'])
  source = sources.read_published(PICKLES / 'progan_tiny.pkl')
  run, state = state_of(workdir, source)
  phase = run.schedule.phase_at(int(state.images), run.gan.res)
  assert phase.res == 16 and phase.alpha == 0.5  # lod 0.5
  for tree, want in ((state.g, source.g), (state.d, source.d), (state.ema, source.ema)):
    assert_equal_trees(tree, want)
  # To 32 pixels it has yet to grow; what it has at 16 stays.
  flags = [str(PICKLES / 'progan_tiny.pkl'), f'--workdir={tmp_path / "more"}']
  widths = (8, 8, 8, 8, 4)
  flags += ['--set=res=32', f'--set=g_widths={widths}', f'--set=d_widths={widths}']
  cli.main([*flags, '--partial'])
  run, state = state_of(tmp_path / 'more', source)
  phase = run.schedule.phase_at(int(state.images), run.gan.res)
  assert run.gan.res == 32 and phase.res == 16 and phase.alpha == 0.5
  fresh = {k: v for k, v in state.g['params'].items() if k not in source.g['params']}
  assert set(fresh) == {'conv32', 'conv32_up', 'rgb32'}
  kept = {k: state.g['params'][k] for k in source.g['params']}
  assert_equal_trees(kept, source.g['params'])


def test_official_names_without_code(tmp_path):
  networks = weights.read_network_pickle(PICKLES / 'stylegan_tiny.pkl')
  arrays = {
    f'{n}/{k}': v for n, net in zip(('G', 'D', 'Gs'), networks, strict=True)
    for k, v in net.variables.items()
  }  # fmt: skip
  np.savez(tmp_path / 'a.npz', **arrays)
  path = tmp_path / 'a.safetensors'
  path.write_bytes(b''.join(export.safetensors(arrays, {})))
  kwargs = {f'{side}_kwargs': n.kwargs for side, n in zip('GD', networks, strict=False)}
  (tmp_path / 'a.json').write_text(json.dumps(kwargs))
  want = sources.read_published(PICKLES / 'stylegan_tiny.pkl')
  for name in ('a.npz', 'a.safetensors'):
    got = sources.read_published(tmp_path / name)
    assert got.gan == want.gan
    for side in ('g', 'd', 'ema'):
      assert_equal_trees(getattr(got, side), getattr(want, side))


def test_the_copy_of_progan_in_the_stylegan_repository():
  """Its up-convolutions are stored [h, w, in, out], the original's [h, w, out, in]."""
  g, d, _ = weights.read_network_pickle(PICKLES / 'progan_tiny.pkl')
  gan = importers.progan_from_kwargs(g.kwargs, d.kwargs)
  like, _ = sources.shapes(gan)
  copied = {
    k: v.swapaxes(2, 3) if k.endswith('Conv0_up/weight') else v
    for k, v in g.variables.items()
  }
  args = (gan, 'G', g.kwargs, like)
  want = importers.convert_progressive(g.variables, *args)
  assert_equal_trees(
    importers.convert_progressive(copied, *args, library='dnnlib'), want
  )


def test_a_suffix_names_other_files_of_the_folder(tmp_path):
  for name in ('G', 'D', 'G_ema'):
    path = CHECKPOINTS / 'exp_zip' / f'{name}.pth'
    shutil.copy(path, tmp_path / f'{name}_best0.pth')
  with pytest.raises(UserError, match='no G.pth'):
    sources.read_published(tmp_path)
  got, want = (
    sources.read_published(tmp_path, 'best0'),
    sources.read_published(CHECKPOINTS / 'exp_zip'),
  )
  assert got.gan == dataclasses.replace(want.gan, d_init=got.gan.d_init)
  assert_equal_trees(got.ema, want.ema)
