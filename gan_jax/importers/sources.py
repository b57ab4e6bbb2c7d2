"""What somebody published -> a model, its weights and the settings of its training.

  folder with G.pth, D.pth, G_ema.pth, G_optim.pth, ...  of BigGAN-PyTorch
  folder with pytorch_model.bin and config.json          of pytorch-pretrained-BigGAN
  .pkl                                                    NVIDIA's (G, D, Gs)
  .npz or .safetensors in place of any of these          the same official names

Nothing in a source is executed or believed: see files.py. Every array finds its place
and every place its array, or there is an error that names them.
"""

import dataclasses
import functools
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from gan_jax import UserError
from gan_jax.importers.biggan_pytorch import (
  BIGGAN_D,
  BIGGAN_DEEP_D,
  BIGGAN_G,
  biggan_from_shapes,
  convert_biggan,
  convert_huggingface,
  huggingface_gan,
)
from gan_jax.importers.nvidia import (
  convert_progressive,
  progan_from_kwargs,
  stylegan_from_kwargs,
)
from gan_jax.models.base import Variables
from gan_jax.models.stylegan import StyleGAN
from gan_jax.sampling.export import model_section
from gan_jax.storage import weights

SUFFIXES = ('.pth', '.npz', '.safetensors')
HUGGING_FACE = ('pytorch_model.bin', 'model.safetensors', 'model.npz')
Arrays = Mapping[str, np.ndarray]


def _shapes(gan: Any) -> tuple[Variables, Variables]:
  """Variables of G and D without values."""
  return jax.eval_shape(gan.init, jax.random.key(0))


shapes: Callable[[Any], tuple[Variables, Variables]] = functools.lru_cache(16)(_shapes)


class AdamMoments(NamedTuple):
  """An Adam optimizer's memory, as trees of the parameters' structure."""

  steps: int
  first: Any
  second: Any


@dataclasses.dataclass(frozen=True)
class PublishedModel:
  """What was found, in our terms; `d` and the moments may be missing."""

  path: Path
  kind: str
  gan: Any  # a GAN
  g: Variables
  ema: Variables
  d: Variables | None
  whole: bool  # all that such a source usually has
  g_moments: AdamMoments | None
  d_moments: AdamMoments | None
  step: int  # iterations done
  settings: Callable[[Any], tuple[dict[str, Any], int]]  # GAN -> config, images seen
  notes: tuple[str, ...] = ()


def read_published(path: Path | str, suffix: str = '') -> PublishedModel:
  """Reads any of the sources above.

  Args:
    suffix: of a BigGAN-PyTorch folder's files: 'best0' for G_best0.pth.

  Raises:
    UserError: nothing that is known, or weights that do not fit; one sentence.
  """
  path = Path(path)
  with _fitting(path):
    if path.is_dir():
      weight_files = [path / name for name in HUGGING_FACE if (path / name).is_file()]
      if weight_files and (path / 'config.json').is_file():
        return _checked(_hugging_face(path, weight_files[0]))
      return _checked(_biggan_folder(path, suffix))
    if path.suffix in ('.npz', '.safetensors'):
      return _checked(_named_arrays(path))
    if path.suffix in ('.pth', '.bin'):
      raise UserError(f'{path} is one file of several: name its folder.')
    networks = weights.read_network_pickle(path)
    if len(networks) not in (2, 3):
      raise UserError(f'{path} holds {len(networks)} networks; (G, D, Gs) are needed.')
    return _checked(_nvidia(path, networks))


@contextmanager
def _fitting(path: Path) -> Iterator[None]:
  """Sizes and names that contradict each other trip many things; all are the file's."""
  try:
    yield
  except UserError as error:
    text = str(error)
    raise UserError(text if str(path) in text else f'{path}: {text}') from None
  except Exception as error:
    what = str(error).splitlines()[0][:200] if str(error) else ''
    raise UserError(
      f'{path} holds weights and settings that do not fit together '
      f'({type(error).__name__}: {what}).'
    ) from None


def _checked(source: PublishedModel) -> PublishedModel:
  """The source, unless a weight is no number."""
  for name in ('g', 'd', 'ema'):
    tree = getattr(source, name) or {}
    for place, x in jax.tree_util.tree_leaves_with_path(tree):
      if not np.isfinite(np.asarray(x, np.float32)).all():
        where = jax.tree_util.keystr(place, simple=True, separator='/')
        raise UserError(f'{source.path} holds {name} with NaN or infinity in {where}.')
  return source


LIMITS = {
  'resolution': 2048, 'output_dim': 2048, 'depth': 8, 'layers': 64, 'stats': 1001,
  'SVs': 16, 'SV_itrs': 16, 'features': 64, 'size': 4096,
}  # fmt: skip


def _believable(settings: Mapping[str, Any]) -> dict[str, Any]:
  """Settings as they are, unless a number in them would make a network endless."""
  for name, value in settings.items():
    if isinstance(value, list | tuple) and len(value) > 64:
      raise UserError(f'{name} has {len(value)} entries, more than any network.')
    if not isinstance(value, int | float):
      continue
    limits = [n for key, n in LIMITS.items() if name.lower().endswith(key.lower())]
    if not -1e9 <= value <= min([1e9, *limits]):
      raise UserError(f'{name} is {value:g}, which is of no network.')
  return dict(settings)


def _sections(
  per_step: int, images: int, data: str, **sections: dict[str, Any]
) -> dict[str, Any]:
  """A config; from here on for another million images, unless told otherwise."""
  log = {'metrics_every': 100, 'grid_every': 1000, 'checkpoint_every': 1000}
  return {
    **sections,
    'data': {'name': data},
    'train': {'images': images + 1_000_000, **sections.get('train', {})},
    'log': {name: n * per_step for name, n in log.items()},
  }


# ---- BigGAN-PyTorch

# Settings that the launch scripts give and weights do not tell.
SCRIPT = {'SN_eps': 1e-6, 'BN_eps': 1e-5, 'adam_eps': 1e-6}
DATA = {'C10': 'cifar10', 'C100': 'cifar100'}  # and I32, I64, ...: ImageNet


def _biggan_folder(folder: Path, suffix: str) -> PublishedModel:
  end = f'_{suffix}' if suffix else ''
  states = {}
  for role in ('G', 'G_ema', 'D'):
    found = [f for s in SUFFIXES if (f := folder / f'{role}{end}{s}').is_file()]
    if found:
      states[role] = _unwrapped(weights.read_arrays(found[0]))
  if 'G' not in states and 'G_ema' not in states:
    raise UserError(
      f'{folder} has no G{end}.pth or G_ema{end}.pth of BigGAN-PyTorch, and no '
      'pytorch_model.bin with a config.json.'
    )
  trees = {}
  for name in ('G_optim', 'D_optim', 'state_dict'):
    if (folder / f'{name}{end}.pth').is_file():
      trees[name] = weights.read_tree(folder / f'{name}{end}.pth')
  return _biggan(folder, states, trees)


def _unwrapped(state: Arrays) -> dict[str, np.ndarray]:
  """Without the name that torch.nn.DataParallel puts in front."""
  return {k.removeprefix('module.'): v for k, v in state.items()}


def _biggan(
  path: Path, states: Mapping[str, Arrays], trees: dict[str, Any]
) -> PublishedModel:
  notes = []
  saved = trees.get('state_dict', {})
  settings = {**SCRIPT, **biggan_settings(states)}
  if isinstance(saved.get('config'), dict):
    known = {k: v for k, v in saved['config'].items() if _is_plain(v)}
    settings |= known
  else:
    notes.append(
      'settings that weights do not tell are those of the launch scripts: '
      + ', '.join(f'{k}={v:g}' for k, v in SCRIPT.items())
    )
  _believable(settings)
  deep = settings['deep']
  gan = biggan_from_shapes(settings, settings if 'D' in states else {}, deep)
  if 'D' not in states:
    notes.append('there is no D: it starts anew')
    sizes = tuple(s for s in (64,) if gan.res > 64)
    gan = dataclasses.replace(gan, d_ch=gan.g_ch, d_attention=sizes)
  gan = dataclasses.replace(gan, split_d=bool(settings.get('split_D', False)))
  like_g, like_d = shapes(gan)
  g = convert_biggan(states.get('G') or states['G_ema'], BIGGAN_G, like_g)
  ema = convert_biggan(states['G_ema'], BIGGAN_G, like_g) if 'G_ema' in states else g
  if len(states) < 3 and 'D' in states:
    notes.append('there is one generator: it is both the trained and the averaged one')
  table_d = BIGGAN_DEEP_D if deep else BIGGAN_D
  d = convert_biggan(states['D'], table_d, like_d) if 'D' in states else None
  moments = {}
  for side, table, like in (('G', BIGGAN_G, like_g), ('D', table_d, like_d)):
    if f'{side}_optim' in trees and side in states:
      tree = trees[f'{side}_optim']
      moments[side] = _torch_moments(tree, states[side], table, like)
    else:
      notes.append(f'there is no optimizer of {side}: it starts anew')
  step = int(saved.get('itr', 0))
  return PublishedModel(
    path=path,
    kind='BigGAN-PyTorch',
    gan=gan,
    g=g,
    ema=ema,
    d=d,
    whole=d is not None,
    g_moments=moments.get('G'),
    d_moments=moments.get('D'),
    step=step,
    settings=lambda gan: _biggan_config(gan, settings, step),
    notes=tuple(notes),
  )


def _is_plain(value: Any) -> bool:
  return isinstance(value, str | int | float | bool)


def biggan_settings(states: Mapping[str, Arrays]) -> dict[str, Any]:
  """Constructor arguments of BigGAN-PyTorch that its weights tell.

  Args:
    states: state_dicts of 'G', 'G_ema' and 'D', as many as there are.
  """
  found: dict[str, Any] = {'deep': False}
  g = states.get('G') or states.get('G_ema')
  if g is not None:
    numbers = {int(m[1]) for k in g if (m := re.match(r'blocks\.(\d+)\.0\.', k))}
    blocks, deep = len(numbers), 'blocks.0.0.conv4.weight' in g
    stages = blocks // 2 if deep else blocks
    if not 3 <= stages <= 7:
      raise UserError(f'G has {blocks} blocks: BigGAN has one to a doubling from 4x4.')
    rows, first = g['linear.weight'].shape
    found |= {'deep': deep, 'resolution': 4 << stages, 'G_depth': 2}
    found['G_ch'] = rows // 16 // (4 if stages == 3 else 16)
    found['G_shared'] = 'shared.weight' in g
    gain = g['blocks.0.0.bn1.gain.weight'].shape
    if found['G_shared']:
      found['n_classes'], shared = g['shared.weight'].shape
      found['shared_dim'] = shared
      chunk = gain[1] - shared
      found['hier'] = chunk > 0
      found['dim_z'] = first
      if deep:
        found['dim_z'] = first - shared
      elif chunk:
        found['dim_z'] = chunk * (blocks + 1)
    else:
      found |= {'n_classes': gain[0], 'dim_z': first, 'hier': False, 'shared_dim': 0}
    gammas = [
      int(m[1]) for k in g if (m := re.fullmatch(r'blocks\.(\d+)\.1\.gamma', k))
    ]
    sizes = [8 << (i // 2 if deep else i) for i in gammas]
    found['G_attn'] = '_'.join(map(str, sizes)) or '0'
    found['num_G_SVs'] = sum(k.startswith('linear.u') for k in g)
    found['mybn'] = any(k.endswith('.accumulation_counter') for k in g)
  d = states.get('D')
  if d is not None:
    pattern = r'blocks\.(\d+)\.(\d+)\.(conv1\.weight|gamma)'
    parts = [m.groups() for k in d if (m := re.fullmatch(pattern, k))]
    stages = len({i for i, _, kind in parts if kind != 'gamma'})
    deep = 'input_conv.weight' in d
    of_stages = {i + 3 + (not deep): 32 << i for i in range(4)}
    if stages not in of_stages:
      raise UserError(f'D has {stages} stages: BigGAN-PyTorch has none such.')
    res = found.setdefault('resolution', of_stages[stages])
    stem = d['input_conv.weight' if deep else 'blocks.0.0.conv2.weight']
    found['deep'] = found['deep'] or deep
    found['D_ch'] = len(stem) // (4 if res == 32 else 1)
    found['D_depth'] = len({j for i, j, kind in parts if i == '0' and kind != 'gamma'})
    found['D_wide'] = deep or len(d['blocks.0.0.conv1.weight']) == len(stem)
    gammas = [int(i) for i, _, kind in parts if kind == 'gamma']
    labels = {16} if res == 32 and gammas else {res >> (i + 1) for i in gammas}
    found['D_attn'] = '_'.join(map(str, sorted(labels))) or '0'
    found['num_D_SVs'] = sum(k.startswith('linear.u') for k in d)
    found.setdefault('n_classes', len(d['embed.weight']))
  return found


def _torch_moments(
  tree: Any, state: Arrays, table: Any, like: Variables
) -> AdamMoments | None:
  """torch.optim.Adam's state, whose keys count parameters in the state_dict's order."""
  buffer = (
    r'(.*\.)?(u\d+|sv\d+|stored_\w+|running_\w+|accumulation_\w+|num_batches_\w+)'
  )
  names = [name for name in state if not re.fullmatch(buffer, name)]
  order = [i for group in tree['param_groups'] for i in group['params']]
  if len(order) != len(names):
    raise UserError(f'an optimizer has {len(order)} parameters, its net {len(names)}.')
  if not tree['state']:
    return None
  parts = {}
  for kind in ('exp_avg', 'exp_avg_sq'):
    arrays = {n: tree['state'][i][kind] for n, i in zip(names, order, strict=True)}
    parts[kind] = convert_biggan(arrays, table, {'params': like['params']})['params']
  steps = {int(tree['state'][i]['step']) for i in order}
  return AdamMoments(max(steps), parts['exp_avg'], parts['exp_avg_sq'])


def _biggan_config(
  gan: Any, settings: Mapping[str, Any], step: int
) -> tuple[dict[str, Any], int]:
  s = settings
  d_steps, accum = s.get('num_D_steps', 2), s.get('num_D_accumulations', 1)
  batch = s.get('batch_size', 256) * accum
  g_batch = max(s.get('G_batch_size', 0), s.get('batch_size', 256)) * accum
  per_step = batch * d_steps

  def adam(side: str) -> dict[str, Any]:
    return dict(
      beta1=float(s.get(f'{side}_B1', 0.0)),
      beta2=float(s.get(f'{side}_B2', 0.999)),
      eps=float(s['adam_eps']),
      ortho=float(s.get(f'{side}_ortho', 0.0)),
    )

  name = str(s.get('dataset', ''))
  data = DATA.get(name, 'imagenet2012' if name[:1] == 'I' else 'name_your_set')
  config = _sections(
    per_step,
    step * per_step,
    data,
    model=model_section(gan),
    schedule=dict(
      batch=batch,
      g_lr=float(s.get('G_lr', 5e-5)),
      d_lr=float(s.get('D_lr', 2e-4)),
      ema=float(s.get('ema_decay', 0.9999)),
      ema_start=max(s.get('ema_start', 0) - 1, 0) * per_step,
    ),
    g_adam=adam('G'),
    d_adam=adam('D'),
    train=dict(
      d_steps=d_steps, accum=accum, g_batch=0 if g_batch == batch else g_batch
    ),
  )
  return config, step * per_step


# ---- pytorch-pretrained-BigGAN


def _hugging_face(folder: Path, weight_file: Path) -> PublishedModel:
  config = json.loads((folder / 'config.json').read_text())
  _believable(config)
  gan = huggingface_gan(config)
  state = weights.read_arrays(weight_file)
  _, g = convert_huggingface(state, config)
  return PublishedModel(
    path=folder,
    kind='pytorch-pretrained-BigGAN',
    gan=gan,
    g=g,
    ema=g,
    d=None,
    whole=True,
    g_moments=None,
    d_moments=None,
    step=0,
    settings=lambda gan: _biggan_config(gan, {**SCRIPT, 'G_ortho': 1e-4}, 0),
    notes=('D and the optimizers are not published: they start anew',),
  )


# ---- NVIDIA's ProGAN and StyleGAN


def _nvidia(path: Path, networks: tuple[weights.PickledNetwork, ...]) -> PublishedModel:
  g, d, gs = (*networks, networks[0])[:3]
  states = {'G': g.variables, 'D': d.variables, 'Gs': gs.variables}
  return _growing(path, states, g.kwargs, d.kwargs, g.library)


def _growing(
  path: Path, states: Mapping[str, Arrays], g_kw: Any, d_kw: Any, library: str
) -> PublishedModel:
  """A ProGAN or StyleGAN of its variables by official name and of its options."""
  g_kw, d_kw = _believable(g_kw), _believable(d_kw)
  style = any(name.startswith('G_synthesis/') for name in states['G'])
  gan = (stylegan_from_kwargs if style else progan_from_kwargs)(g_kw, d_kw)
  like_g, like_d = shapes(gan)
  g, ema = (
    convert_progressive(states[s], gan, 'G', g_kw, like_g, library) for s in ('G', 'Gs')
  )
  d = None
  if 'D' in states:
    d = convert_progressive(states['D'], gan, 'D', d_kw, like_d, library)
  lods = [v for k, v in states['G'].items() if k.rpartition('/')[2] == 'lod']
  lod = round(float(np.max(lods[0])), 5) if lods else 0.0
  if not 0 <= lod <= gan.res.bit_length() - 3:
    raise UserError(f'lod is {lod:g}, which is no level of {gan.res} pixels.')
  return PublishedModel(
    path=path,
    kind='StyleGAN' if style else 'ProGAN',
    gan=gan,
    g=g,
    ema=ema,
    d=d,
    whole=d is not None,
    g_moments=None,
    d_moments=None,
    step=0,
    settings=lambda now: _growing_config(now, lod, gan.res),
    notes=('the optimizers are not published: they start anew',),
  )


# Of the official 8-GPU runs: reals per step, and learning rates beside 0.001.
BATCHES = {4: 512, 8: 256, 16: 128, 32: 64, 64: 32}
RATES = {128: 0.0015, 256: 0.002, 512: 0.003, 1024: 0.003}
PERIOD = 600_000


def _growing_config(gan: Any, lod: float, res: int) -> tuple[dict[str, Any], int]:
  """`lod` counts from `res`; a gan with more has yet to grow there."""
  style = isinstance(gan, StyleGAN)
  lod = max(lod + math.log2(gan.res / res), 0.0)
  first = 4 if not style or lod > gan.res.bit_length() - 4 else min(8, gan.res)
  sizes = [first << i for i in range((gan.res // first).bit_length())]
  done = len(sizes) - 1 - lod
  stage = math.floor(done)
  images = 2 * PERIOD * stage
  if done > stage:
    images += PERIOD + round((done - stage) * PERIOD)
  rates = [RATES.get(size, 0.001) for size in sizes]
  batches = [BATCHES.get(size, 32) for size in sizes]
  average = dict(ema_half_life=10_000) if style else dict(ema=0.999)
  adam = dict(beta1=0.0, beta2=0.99, eps=1e-8, tf_eps=True)
  config = _sections(
    batches[-1],
    images,
    'name_your_set',
    model=model_section(gan),
    schedule=dict(resolutions=sizes, batch=batches, g_lr=rates, d_lr=rates, **average),
    g_adam=adam,
    d_adam=dict(adam),
    train={},
  )
  return config, images


# ---- official names in files without code


def _named_arrays(path: Path) -> PublishedModel:
  """G/..., D/... and Gs/... (or G_ema/...) of one .npz or .safetensors file.

  A .json of the same name beside it has G_kwargs and D_kwargs; weights alone tell
  them for BigGAN-PyTorch.
  """
  arrays = weights.read_arrays(path)
  states: dict[str, dict[str, np.ndarray]] = {}
  for name, value in arrays.items():
    role, _, rest = name.partition('/')
    states.setdefault(role, {})[rest] = value
  if unknown := set(states) - {'G', 'D', 'Gs', 'G_ema'}:
    raise UserError(
      f'{path} has names such as {sorted(unknown)[0][:80]!r}: each begins with G/, '
      'D/, Gs/ or G_ema/ and goes on with the official name.'
    )
  if any('linear.weight' in state for state in states.values()):
    return _biggan(path, {k: _unwrapped(v) for k, v in states.items()}, {})
  beside = [path.with_suffix('.json')]
  beside.append(path.with_name(path.stem.removesuffix('_vars') + '.json'))
  described = [p for p in beside if p.is_file()]
  if not described or 'G' not in states:
    raise UserError(
      f'{path} needs {beside[0].name} beside it, with G_kwargs and D_kwargs, the '
      'options of the official networks.'
    )
  meta = json.loads(described[0].read_text())
  g_kw, d_kw = (meta[f'{side}_kwargs'] for side in 'GD')
  states.setdefault('Gs', states['G'])
  return _growing(path, states, g_kw, d_kw, str(meta.get('library', 'tfutil')))
