"""Wrapped names: stripped in any order and number, and never mapped wrongly."""

import pickle

import jax
import numpy as np
import pytest

from gan_jax import UserError
from gan_jax.importers.network_states import assign_roles, find_networks
from gan_jax.importers.sources import read_published
from gan_jax.storage import weights

# Of one module: anywhere in a name. Of networks: before it.
MODULES = ('module', '_orig_mod', '_forward_module', '_fsdp_wrapped_module')
NETWORKS = ('model', 'net', 'state_dict', 'generator', 'netG', 'G', 'online_model')
AVERAGES = (
  'ema_model', 'G_ema', 'g_ema', 'model_ema', 'ema', 'shadow_params', 'averaged_model',
  'g_running', 'avgG', 'netG_avg', 'modelEMA', 'Gs',
)  # fmt: skip


@pytest.fixture(scope='module')
def states(checkpoints):
  return {r: dict(weights.read_arrays(checkpoints / 'exp_zip' / f'{r}.pth')) for r in
          ('G', 'D', 'G_ema')}  # fmt: skip


def wrap(state, rng, *words):
  """Names behind `words` in the order given, each among random wrappers of a module."""
  parts = []
  for word in (*words, ''):
    parts += list(rng.choice(MODULES, rng.integers(3)))
    parts += [word] if word else []
  inner = f'{rng.choice(MODULES)}.' if rng.integers(2) else ''
  return {
    '.'.join([*parts, name.replace('blocks.0.0.', f'blocks.0.0.{inner}')]): value
    for name, value in state.items()
  }


def saved(path, tree):
  path.write_bytes(pickle.dumps(tree))
  return path


def test_networks_are_found_under_random_wrappers(tmp_path, rng_seed, states):
  rng = np.random.default_rng(rng_seed)
  for _ in range(30):
    ema_word, word = rng.choice(AVERAGES), rng.choice(NETWORKS)
    outer = list(rng.choice(('state_dict', 'checkpoint', 'model'), rng.integers(3)))
    named = {
      'G_ema': wrap(states['G_ema'], rng, *outer, ema_word),
      'G': wrap(states['G'], rng, *outer, f'{word}_raw'),
      'D': wrap(states['D'], rng, *outer, 'discriminator'),
    }
    roles = list(rng.permutation(list(named)))[: rng.integers(1, 4)]
    tree = {name: value for role in roles for name, value in named[role].items()}
    tree['n_averaged'] = np.array(7)
    tree[f'{ema_word}.num_updates'] = np.array([3])
    networks, left_out = find_networks(tmp_path, tree)
    found = assign_roles(tmp_path, networks)
    assert set(found) == set(roles) and not left_out
    for role, network in found.items():
      assert list(network.arrays) == list(states[role])  # the optimizer needs the order
      assert all(network.arrays[k] is v for k, v in states[role].items())


def test_a_lightning_checkpoint_gives_the_model_of_the_folder(
  tmp_path, biggan, states, assert_equal_trees
):
  rng = np.random.default_rng(0)
  tree = {
    'epoch': 3,
    'state_dict': wrap(states['G'], rng, 'generator')
    | wrap(states['D'], rng, 'discriminator')
    | wrap(states['G_ema'], rng, 'ema_model')
    | {'ema_model.n_averaged': np.array(2)},
    'optimizer_states': [{'state': {0: {'exp_avg': states['G']['linear.weight']}}}],
    'hyper_parameters': {'lr': 0.1},
  }
  got = read_published(saved(tmp_path / 'last.ckpt', tree))
  for side in ('g', 'd', 'ema'):
    assert_equal_trees(getattr(got, side), getattr(biggan, side))
  assert 'not imported from last.ckpt: optimizer_states' in got.notes[0]


def test_nested_networks_of_one_file(tmp_path, biggan, states, assert_equal_trees):
  tree = {
    'G': states['G'],
    'D': {'module': states['D']},
    'ema': {'decay': 0.999, 'num_updates': 4, 'shadow_params': states['G_ema']},
    'G_optim': {'state': {0: {'step': 4}}, 'param_groups': [{'params': [0]}]},
  }
  got = read_published(saved(tmp_path / 'all.pkl', tree))
  for side in ('g', 'd', 'ema'):
    assert_equal_trees(getattr(got, side), getattr(biggan, side))


@pytest.mark.parametrize(
  'change, words',
  [
    (lambda g, e: {'a': g, 'b': e}, "several generators.*'a.', 'b.'.*which one is G"),
    (lambda g, e: {'ema': g, 'G_ema': e}, 'several generators.*which one is G_ema'),
    (lambda g, e: g | {'foo.weight': np.ones(3)}, r'none of its networks \(foo.weight'),
    (lambda g, e: g | {'foo.linear.bias': np.ones(3)}, 'none of its.*foo.linear.bias'),
    (lambda g, e: g | {'n_averaged': np.ones(3)}, r'none of its networks \(n_averaged'),
    (
      lambda g, e: g | {'module.linear.weight': e['linear.weight']},
      "two arrays 'linear.weight', one of them as 'module.linear.weight'",
    ),
    (lambda g, e: {'shadow_params': list(e.values()), 'decay': 0.9}, 'without names'),
    (lambda g, e: {'to_rgb1.conv.modulation.weight': g['linear.weight']}, 'StyleGAN2'),
    (lambda g, e: {'synthesis.L0_36_512.bias': g['linear.bias']}, 'StyleGAN3'),
    (lambda g, e: {'blocks.0.0.conv2d1.weight': g['linear.bias']}, 'StudioGAN'),
    (
      lambda g, e: {'params/rgb/kernel': g['linear.bias']},
      'a generator that gan_jax exported: .* --program=.*/a.stablehlo',
    ),
    (lambda g, e: {'a': 1, 'b': 'c'}, 'has no arrays'),
    (lambda g, e: {'blocks.0.attn.qkv.weight': g['linear.bias']}, 'arrays such as blo'),
    (lambda g, e: {k: v for k, v in g.items() if k != 'linear.bias'}, 'are missing'),
    (lambda g, e: g | {'blocks.0.0.foo.weight': np.ones(3)}, 'not part of it'),
  ],
)
def test_what_is_unclear_is_refused(tmp_path, states, change, words):
  path = saved(tmp_path / 'a.pt', change(states['G'], states['G_ema']))
  with pytest.raises(UserError, match=words) as found:
    read_published(path)
  assert str(path) in str(found.value)


def test_a_discriminator_alone_is_named(tmp_path, states):
  with pytest.raises(UserError, match='has a discriminator only'):
    read_published(saved(tmp_path / 'net.pt', states['D']))
  for name, role in (('G', 'D'), ('D', 'G')):
    saved(tmp_path / f'{name}.pth', states[role])
  with pytest.raises(UserError, match='G.pth has a discriminator.*its name is that of'):
    read_published(tmp_path)


def test_wrapped_names_of_hugging_face(tmp_path, checkpoints, assert_equal_trees):
  source = checkpoints / 'hf_zip'
  state = weights.read_arrays(source / 'pytorch_model.bin')
  (tmp_path / 'config.json').write_bytes((source / 'config.json').read_bytes())
  wrapped = wrap(state, np.random.default_rng(1), 'generator', 'model')
  got = read_published(saved(tmp_path / 'pytorch_model.bin', wrapped).parent)
  assert_equal_trees(got.ema, read_published(source).ema)


def test_an_optimizer_needs_the_order_of_its_parameters(tmp_path, checkpoints, states):
  """.safetensors files are sorted, and Adam's moments are numbered."""
  for name in ('G', 'D', 'G_optim', 'D_optim', 'state_dict'):
    contents = (checkpoints / 'exp_zip' / f'{name}.pth').read_bytes()
    (tmp_path / f'{name}.pth').write_bytes(contents)
  assert read_published(tmp_path).g_moments is not None
  (tmp_path / 'G.pth').unlink()
  np.savez(tmp_path / 'G.npz', **dict(sorted(states['G'].items())))
  model = read_published(tmp_path)
  assert model.g_moments is None and model.d_moments is not None
  assert 'the optimizer of G is missing: it starts anew' in model.notes
  assert jax.tree.all(jax.tree.map(np.array_equal, model.g, model.ema))
