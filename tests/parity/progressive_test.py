"""ProGAN and StyleGAN against the outputs of the official code under --reference.

A fixture is a `<name>.json` with `<name>_vars.npz` and further files of that name, or
one of the files in `STANDALONE`. The tests know kinds of files and keys, but no names,
sizes or options; an unknown kind is a failure. Tolerances are those of the README
beside the fixtures.
"""

import dataclasses
import json
import math
import re
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gan_jax import importers
from gan_jax.config.optimizers import AdamConfig
from gan_jax.models import losses, progan, progressive, stylegan
from gan_jax.models.base import Batch, Phase
from gan_jax.ops.resampling import downsample, upsample
from gan_jax.runtime import sharding
from gan_jax.runtime.mesh import make_mesh
from gan_jax.training.compile_step import make_train_step
from gan_jax.training.optimizers import make_optimizer
from gan_jax.training.step import exponential_average
from gan_jax.training.train_state import TrainState, flatten_kernels, make_reset
from tests.parity.official_schedule import progressive_schedule
from tests.parity.reference_files import load, nhwc, on_one_device, report, under

LOSS, GRADIENT, TRAINED, FORWARD, FORWARD_WIDE = 1e-5, 3e-4, 1e-3, 2e-5, 2e-4
STANDALONE = ('process_reals', 'ema_adam_trace')
LOSSES = {  # official name of a StyleGAN loss -> side, ours
  'G_logistic_nonsaturating': ('G', 'logistic'),
  'D_logistic_simplegp': ('D', 'logistic'),
  'G_wgan': ('G', 'wgan'),
  'D_wgan_gp': ('D', 'wgan'),
}


def phase_of(lod, res, lr=0.0, ema=0.0):
  lod = round(float(lod), 5)  # float32 0.4 is not 0.4
  alpha = 1 - (lod - math.floor(lod))
  values = (np.float32(v) for v in (alpha, lr, lr, ema))
  return Phase(*values, res=res >> math.floor(lod))


def shrunk(images, res):
  while images.shape[1] > res:
    images = downsample(images)
  return images


def grown(images, res):
  while images.shape[1] < res:
    images = upsample(images)
  return images


class Checks:
  """The worst relative error of each kind of check, with its tolerance."""

  def __init__(self):
    self.worst = {}

  def __call__(self, kind, ours, theirs, tolerance, floor=0.0):
    """Records max|ours - theirs| / max|theirs|; an error up to `floor` counts as 0."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape, f'{kind}: {ours.shape} for {theirs.shape}'
    error = np.max(np.abs(ours - theirs), initial=0)
    scale = np.max(np.abs(theirs), initial=0)
    if not np.isfinite(error):
      error = np.inf
    elif error <= floor:
      error = 0.0
    error = error / scale if scale else (np.inf if error else 0.0)
    self.worst[kind] = max(self.worst.get(kind, (0.0, tolerance)), (error, tolerance))

  def trees(self, kind, ours, theirs, tolerance, floors=()):
    """Checks each leaf, relative to its own largest value."""
    paths = jax.tree_util.tree_leaves_with_path(theirs)
    for (path, b), a in zip(paths, jax.tree.leaves(ours), strict=True):
      name = jax.tree_util.keystr(path, simple=True, separator='/')
      floor = dict(floors).get(name, 0.0)
      self(f'{kind} ({name})', a, b, tolerance, floor)


class Networks:
  """The networks of a fixture: model, variables and the order of its batches."""

  def __init__(self, folder, name):
    self.path = lambda kind: folder / f'{name}_{kind}.npz'
    meta = json.loads((folder / f'{name}.json').read_text())
    self.kwargs = {side: meta[f'{side}_kwargs'] for side in 'GD'}
    self.style = any(key.startswith('G_synthesis/') for key in meta['G_vars'])
    family = (
      importers.stylegan_from_kwargs if self.style else importers.progan_from_kwargs
    )
    self.gan = family(self.kwargs['G'], self.kwargs['D'])
    self.meta, self.res = meta, self.gan.res
    g, d = jax.eval_shape(self.gan.init, jax.random.key(0))
    self.like = {'G': g, 'D': d}
    self.start = load(self.path('vars'))
    self.g, self.d = (self.variables(under(self.start, f'{s}/'), s) for s in 'GD')
    narrow = min(self.gan.g_widths + self.gan.d_widths) <= 8
    self.forward = FORWARD_WIDE if narrow and self.res >= 128 else FORWARD

  def variables(self, state, side, only=None):
    like = self.like[side] if only is None else {k: self.like[side][k] for k in only}
    args = (self.gan, side, self.kwargs[side], like)
    return importers.convert_progressive(state, *args)

  def params(self, state, side):
    return self.variables(state, side, ('params',))['params']

  def order(self, n):
    """The order in which our consecutive groups are the original's strided ones."""
    group = min(self.gan.mbstd_group, n)
    return np.arange(n).reshape(group, -1).T.reshape(-1)

  def ordered(self, x):
    return x[self.order(len(x))]

  def restored(self, x):
    return np.asarray(x)[np.argsort(self.order(len(x)))]

  def judge(self):
    """(d, images, class weights, phase) -> scores [b, 1], logits [b, n]."""
    gan = self.gan

    def f(d, images, weights, phase):
      if self.style:
        return gan.discriminate(d, images, weights, phase), weights
      return gan.discriminate(d, images, phase)

    return on_one_device(f)


def forward(net, check):
  z, gan, tol = load(net.path('forward')), net.gan, net.forward
  latents, labels = z.pop('latents'), z.pop('labels')
  images = nhwc(z.pop('D_images'))
  d_labels = z.pop('D_labels', np.zeros((len(images), gan.n_classes), np.float32))
  z.pop('lods', None)

  judge = net.judge()

  @cache
  def generator(gan, res):
    return jax.jit(partial(gan.generate, res=res))

  def compare(kind, image, key, tolerance=tol):
    check(kind, grown(image, net.res), nhwc(z[key]), tolerance)

  variants = {
    'nopixelnorm': dict(g_norm=False),
    'relu': dict(g_relu=True),
    'nonormlatents': dict(normalize_z=False),
  }
  for key in z:
    kind, _, rest = key.partition('/')
    lod = re.search(r'lod([\d.]+)$', key)
    phase = phase_of(lod[1], net.res) if lod else None
    if found := re.fullmatch(r'G_images(?:_(\w+))?', kind):
      changed = dataclasses.replace(gan, **variants[found[1]]) if found[1] else gan
      draw = generator(changed, phase.res)
      compare('G', draw(net.g, latents, labels, alpha=phase.alpha), key)
    elif found := re.fullmatch(r'D_scores(?:_N(\d+))?|D_label_logits', kind):
      n = int(found[1] or len(images)) if kind != 'D_label_logits' else len(images)
      seen = shrunk(net.ordered(images[:n]), phase.res)
      out = judge(net.d, seen, net.ordered(d_labels[:n]), phase)
      check('D', net.restored(out[kind == 'D_label_logits']), z[key], tol)
    elif kind == 'mapping_w':
      check('w', jax.jit(gan.w)(net.g, latents, labels), z[key], tol)
    elif kind == 'synthesis_images':
      ws = z['synthesis_dlatents_per_layer'][:, : gan.layers(phase.res)]
      if not gan.styles:
        ws = z['synthesis_dlatents_per_layer']
      draw = jax.jit(partial(gan.synthesize, res=phase.res))
      compare('synthesis', draw(net.g, ws, alpha=phase.alpha), key)
    elif kind.startswith('trunc_'):
      psi, cutoff = truncation(kind, net.kwargs['G'])
      cut = dataclasses.replace(gan, truncated_layers=cutoff)
      if rest == 'dlatents':
        ws = cut.truncate(net.g, gan.w(net.g, latents, labels), psi)
        check('truncation', ws[:, : z[key].shape[1]], z[key], tol)
      else:
        draw = generator(cut, phase.res)
        image = draw(net.g, latents, labels, psi, alpha=phase.alpha)
        compare('truncation', image, key)
    elif kind == 'mix':
      if rest == 'cases_lod_u_cutoff':
        mixing(net, check, z, latents, labels)
    elif kind != 'synthesis_dlatents_per_layer':
      raise AssertionError(f'{key}: no check for this kind of output')


def truncation(kind, kwargs):
  """psi and cutoff of 'trunc_default' or, for example, 'trunc_psi_m05_cut3'."""
  if kind == 'trunc_default':
    return kwargs.get('truncation_psi', 0.7), kwargs.get('truncation_cutoff', 8)
  sign, whole, part, cutoff = re.fullmatch(
    r'trunc_psi_(m?)(\d)(\d*)_cut(\d+)', kind
  ).groups()
  return (-1 if sign else 1) * float(f'{whole}.{part or 0}'), int(cutoff)


def mixing(net, check, z, latents, labels):
  gan, second = net.gan, z['mix/latents2']
  w, w2 = (gan.w(net.g, x, labels) for x in (latents, second))
  for i, (lod, u, cutoff) in enumerate(z['mix/cases_lod_u_cutoff']):
    phase = phase_of(lod, net.res)
    n = gan.layers(phase.res)
    cutoff = int(cutoff) if u < gan.mixing else n
    check('mix', gan.mix(w, w2, cutoff, phase.res), z[f'mix/{i}/dlatents'][:, :n], 2e-5)
    noise = tuple(net.g['noise'][f'layer{j}'] for j in range(len(gan.sizes(phase.res))))
    draws = stylegan.StyleGANInputs(latents, second, None, noise, cutoff, None)
    fake, g = jax.jit(gan.generate_fakes)(net.g, draws, labels, phase)
    check('mix', grown(fake, net.res), nhwc(z[f'mix/{i}/G_images']), net.forward)
    after = z[f'mix/{i}/dlatent_avg_after']
    check('w_avg', g['moving']['w_avg'][0], after, net.forward)


def classes(labels):
  return np.argmax(labels, -1).astype(np.int32) if labels.size else len(labels) * [0]


def inputs(net, z, phase, side='', fallback=None):
  """The batch and the random inputs of one forward pass from a fixture's arrays."""
  get = lambda *names: next((z[side + n] for n in names if side + n in z), None)
  latents = get('latents')
  n = len(latents)
  none = np.zeros((n, 0), np.float32)
  of_fakes = get('labels_fake_for_G_loss', 'labels_for_G_loss', 'labels')
  of_reals = get('labels_real', 'labels')
  fakes, reals = (none if x is None else x for x in (of_fakes, of_reals))
  shape = (n, net.gan.channels, phase.res, phase.res)
  images = get('reals_uint8')
  images = np.zeros(shape, np.uint8) if images is None else images
  mix = get('alpha')
  mix = np.zeros(n, np.float32) if mix is None else mix.reshape(-1)
  put = lambda x: jnp.asarray(net.ordered(np.asarray(x)))
  batch = Batch(put(nhwc(images)), put(classes(reals)))
  if not net.style:
    return batch, progan.ProGANInputs(put(latents), put(classes(fakes)), put(mix))
  layers = range(len(net.gan.sizes(phase.res)))
  noise = tuple(put(nhwc(get(f'noise{i}'))) for i in layers)
  second = get('latents2')
  cutoff = net.gan.layers(phase.res) if second is None else int(get('mix_cutoff'))
  second = latents if second is None else second
  labels = put(classes(fakes))
  cutoff = jnp.asarray(cutoff, jnp.int32)
  return batch, stylegan.StyleGANInputs(
    put(latents), put(second), labels, noise, cutoff, put(mix)
  )


def loss_function(gan, gradients):
  """Compiled losses, their terms and optionally their gradients, in one phase."""
  style = isinstance(gan, stylegan.StyleGAN)

  def f(g, d, batch, draws, phase):
    weights = progressive.one_hot(batch.labels, gan.n_classes)
    real = progressive.blend_reals(batch, phase, jnp.float32)
    copies = progressive.pixel_copies(gan.res, phase)
    wgan = not style or gan.loss == 'wgan'

    def judge(d, x):
      if style:
        return gan.discriminate(d, x, weights, phase), None
      return gan.discriminate(d, x, phase)

    inputs = draws if style else draws.z
    fake, moved = gan.generate_fakes(g, inputs, weights, phase)
    mixed = losses.interpolate_images(real, fake, draws.interpolation)
    at = mixed if wgan else real
    _, squares = losses.squared_gradients(lambda x: judge(d, x)[0], at, copies)
    out = {
      'scores_real': judge(d, real)[0],
      'scores_fake': judge(d, fake)[0],
      'w_avg': moved.get('moving'),
      'squares': squares,
    }
    if wgan:
      out['scores_mixed'] = judge(d, mixed)[0]
    if not style and gan.n_classes:
      for name, x in (('reals', real), ('fakes', fake)):
        logits = judge(d, x)[1]
        out[f'classes_{name}'] = optax.softmax_cross_entropy(logits, weights)

    def d_loss(p):
      return gan.d_loss(g, {**d, 'params': p}, batch, draws, phase)[0]

    def g_loss(p):
      return gan.g_loss({**g, 'params': p}, d, draws, phase)[0]

    def penalty(p):
      critic = lambda x: judge({**d, 'params': p}, x)[0]
      if wgan:
        terms = (critic, real, fake, draws.interpolation, copies)
        return gan.gp_weight * losses.gradient_penalty(*terms)
      return gan.r1_gamma / 2 * losses.r1(critic, real, copies)[1]

    for name, fn, p in (('D', d_loss, d), ('G', g_loss, g), ('penalty', penalty, d)):
      if gradients:
        out[name], out[f'{name}_grad'] = jax.value_and_grad(fn)(p['params'])
      else:
        out[name] = fn(p['params'])
    return out

  return on_one_device(f)


def gradients_of(net):
  """(side, our loss or '', lod, penalty?, arrays) of every recorded gradient."""
  for path in sorted(net.path('x').parent.glob(net.path('grads_*').name)):
    kind, _, lod = path.stem[len(net.path('grads_').stem) :].rpartition('lod')
    z = load(path)
    if net.style:
      which = LOSSES[kind.rstrip('_')]
      whole = {k: v for k, v in z.items() if not k.startswith('penalty_only/')}
      parts = [(*which, False, whole), (*which, True, under(z, 'penalty_only/'))]
    else:
      known = {'G_grad': ('G', False), 'D_grad': ('D', False)}
      known['D_grad_penalty_only'] = ('D', True)
      kinds = {k.partition('/')[0] for k in z}
      parts = [(known[k][0], '', known[k][1], under(z, f'{k}/')) for k in kinds]
    for side, loss, penalty, arrays in parts:
      if arrays:
        yield side, loss, float(lod), penalty, arrays


def losses_and_gradients(net, check):
  z = load(net.path('loss'))
  recorded_gradients = list(gradients_of(net))
  compiled = {}
  for stage in sorted({k.partition('/')[0] for k in z}):
    lod = float(stage.removeprefix('lod'))
    phase = phase_of(lod, net.res)
    here = under(z, f'{stage}/')
    batch, draws = inputs(net, here, phase)
    for loss in ('logistic', 'wgan') if net.style else ('',):
      gan = dataclasses.replace(net.gan, loss=loss) if net.style else net.gan
      if net.style and 'latents2' not in here:
        gan = dataclasses.replace(gan, mixing=0.0)
      grads = [w for w in recorded_gradients if w[1:3] == (loss, lod)]
      key = gan, phase.res, bool(grads)
      compiled[key] = compiled.get(key) or loss_function(gan, bool(grads))
      ours = compiled[key](net.g, net.d, batch, draws, phase)
      compare_losses(net, check, here, ours, loss)
      for side, _, _, penalty, arrays in grads:
        gradient = ours['penalty_grad' if penalty else f'{side}_grad']
        floors = {'dense1/bias': 1e-6} if loss in ('', 'wgan') else {}
        kind = f'{side} gradient{" of the penalty" if penalty else ""} {loss}'.rstrip()
        check.trees(kind, gradient, net.params(arrays, side), GRADIENT, floors)


def check_mean(check, kind, ours, theirs, tolerance):
  """A loss against the mean of the official tensor, [n, 1] or broadcast to [n, n]."""
  check(kind, ours, theirs.mean(dtype=np.float64), tolerance)


def compare_losses(net, check, here, ours, loss):
  """Compares each recorded loss and each of its terms."""
  root = np.sqrt(np.asarray(ours['squares']))
  parts = {
    'scores_real': ours['scores_real'],
    'scores_fake': ours['scores_fake'],
    'scores_mixed': ours.get('scores_mixed'),
    'real_scores': ours['scores_real'],
    'fake_scores': ours['scores_fake'],
    'mixed_scores': ours.get('scores_mixed'),
    'r1_penalty': ours['squares'],
    'mixed_norms': root,
    'epsilon_penalty': np.square(ours['scores_real']),
    'label_penalty_reals': ours.get('classes_reals'),
    'label_penalty_fakes': ours.get('classes_fakes'),
  }
  known = ('latents', 'lod', 'reals_uint8', 'alpha', 'mix_cutoff', 'labels', 'noise')
  for key, theirs in here.items():
    if key in LOSSES:
      if LOSSES[key][1] == loss:
        check_mean(check, f'{key[0]} loss {loss}', ours[key[0]], theirs, LOSS)
    elif key in ('G_loss', 'D_loss'):
      check_mean(check, f'{key[0]} loss', ours[key[0]], theirs, LOSS)
    elif key == 'dlatent_avg_after':
      check('w_avg', ours['w_avg']['w_avg'][0], theirs, net.forward)
    elif not key.startswith(known):
      whose = [k for k in LOSSES if key.startswith(k + '_')]
      if whose and LOSSES[whose[0]][1] != loss:
        continue
      part = key.removeprefix(f'{whose[0]}_' if whose else 'D_')
      check(f'D {part}', net.restored(parts[part]), theirs, FORWARD)


class Recorded:
  """Mixin that returns the inputs of a recorded run, found by their key."""

  def draw_inputs(self, key, index, phase):
    keys, draws = self.recorded[phase.res]
    same = (keys == jax.random.key_data(key)[None]).all(-1)
    row = jnp.argmax(same)
    return jax.tree.map(lambda x: jnp.asarray(x)[row], draws)


def recorded(gan, recorded):
  cls = type('Recorded', (Recorded, type(gan)), {'recorded': recorded})
  return cls(**{f.name: getattr(gan, f.name) for f in dataclasses.fields(gan)})


def training(net, check):
  z = load(net.path('train'))
  gan = dataclasses.replace(net.gan, fake_labels='uniform')  # G's labels are recorded
  names = net.meta.get('notes', {}).get('train_losses')
  if names:
    (loss,) = {LOSSES[name][1] for name in names}
    gan = dataclasses.replace(gan, loss=loss)
  count = len({k.partition('/')[0] for k in z if k.startswith('step')})
  steps = [under(z, f'step{i}/') for i in range(count)]
  if net.style and not any('D_latents2' in s for s in steps):
    gan = dataclasses.replace(gan, mixing=0.0)
  key, n = jax.random.key(0), len(steps[0]['D_latents'])
  phases, batches, draws = [], [], {}
  for i, s in enumerate(steps):
    lod = next(s[name] for name in ('lod', 'D_lod') if name in s)
    phase = phase_of(lod, net.res, float(s['lrate']), float(z['Gs_beta']))
    phases.append(phase)
    for j, side in enumerate('DG'):
      batch, drawn = inputs(net, s, phase, f'{side}_')
      its = jax.random.fold_in(jax.random.fold_in(key, i), j)
      draws.setdefault(phase.res, []).append((jax.random.key_data(its), drawn))
      if side == 'D':
        batches.append(jax.tree.map(lambda x: x[None], batch))
  stacked = {r: jax.tree.map(lambda *x: jnp.stack(x), *d) for r, d in draws.items()}
  tx = make_optimizer(AdamConfig(beta1=0.0, beta2=0.99, eps=1e-8, tf_eps=True))
  mesh = make_mesh(jax.devices()[:1])
  run = make_train_step(recorded(gan, stacked), tx, tx, mesh, g_batch=n, mapped='jit')
  reset = make_reset(tx, tx, mesh)
  g, d = net.g, net.d
  state = TrainState(
    step=np.int32(0),
    images=np.uint32(0),
    g=g,
    d=d,
    g_opt=tx.init(flatten_kernels(g['params'])),
    d_opt=tx.init(flatten_kernels(d['params'])),
    ema=g,
  )
  state = sharding.replicate(jax.tree.map(jnp.array, state), mesh)
  for s, phase, batch in zip(steps, phases, batches, strict=True):
    if s['opt_reset']:
      state = reset(state)
    state, metrics = run(state, jax.tree.map(lambda x: x[None], batch), key, phase)
    for side in 'DG':
      theirs = s[f'{side}_loss']
      ours = metrics[f'{side.lower()}_loss']
      check_mean(check, f'{side} loss in training', ours, theirs, TRAINED)
    if 'dlatent_avg_after_step' in s:
      ours = state.g['moving']['w_avg'][0]
      check('w_avg in training', ours, s['dlatent_avg_after_step'], TRAINED)
  check_trained(net, z, state, check)


def check_trained(net, z, state, check):
  """Variables and optimizer states at the end of a recorded run."""
  fixed = {k: v for k, v in under(net.start, 'G/').items() if '/noise' in k}
  for name, ours in (('G', state.g), ('D', state.d), ('Gs', state.ema)):
    final = under(z, f'final/{name}/')
    side = name[0]
    want = net.variables({**final, **fixed} if side == 'G' else final, side)
    check.trees(f'{name} trained', ours, want, TRAINED)
  for side, opt in (('G', state.g_opt), ('D', state.d_opt)):
    for name, power in under(z, f'final_{side}opt/').items():
      if name.endswith('beta2_power'):  # TensorFlow's is one power ahead
        check('steps since reset', 0.99 ** (int(opt.t) + 1), power, 1e-6)


def networks(folder, name, check):
  net = Networks(folder, name)
  kinds = {'vars': lambda *_: None, 'forward': forward, 'loss': losses_and_gradients}
  kinds['train'] = training
  others = [p.stem for p in folder.glob('*.json') if p.stem.startswith(f'{name}_')]
  for path in sorted(folder.glob(f'{name}_*.npz')):
    kind = path.stem[len(name) + 1 :]
    if kind.startswith('grads_'):
      assert net.path('loss').exists(), f'{path.name}: gradients without their inputs'
    elif not any(path.stem.startswith(other) for other in others):
      kinds[kind](net, check)


def schedule(path, check):
  whole = json.loads(path.read_text())
  at = {name: i for i, name in enumerate(whole['columns'])}
  for case in whole['cases'].values():
    res = case['resolution']
    ours = progressive_schedule(case['kwargs'], res, case['num_gpus'])
    batches = {stage.res: stage.batch for stage in ours.stages(res)}
    for row in case['rows']:
      images = int(row[at['cur_nimg']])
      phase = ours.phase_at(images, res)
      check('lod', ours.lod_at(images), row[at['lod']], 1e-12)
      check('resolution', phase.res, row[at['resolution']], 0.0)
      check('batch', batches[phase.res], row[at['minibatch']], 0.0)
      check('lr', [phase.g_lr, phase.d_lr], [row[at[f'{s}_lrate']] for s in 'GD'], 1e-7)


def process_reals(path, check):
  z = load(path)
  whole = max(v.shape[-1] for v in z.values())
  for key, images in z.items():
    lod, _, kind = key.partition('/')
    if kind == 'uint8_in':
      phase = phase_of(lod[3:], whole)
      batch = Batch(jnp.asarray(nhwc(images)), None)
      ours = grown(progressive.blend_reals(batch, phase, jnp.float32), whole)
      check('reals', ours, nhwc(z[f'{lod}/out_m1_1']), FORWARD)
      if f'{lod}/out_0_1' in z:
        check('reals', (ours + 1) / 2, nhwc(z[f'{lod}/out_0_1']), FORWARD)


def ema_adam_trace(path, check):
  z = load(path)
  for i, beta in enumerate(z['betas']):
    ema = z['gs0']
    for weights, want in zip(z['g_sequence'], z[f'gs_trace_beta{i}'], strict=True):
      ema = exponential_average(ema, weights, beta)
      check('EMA', ema, want, 1e-6)
  tx = make_optimizer(AdamConfig(beta1=0.0, beta2=0.99, eps=1e-8, tf_eps=True))
  v, state = z['adam/v0'], tx.init(z['adam/v0'])
  for i, (grads, want) in enumerate(zip(z['adam/grads'], z['adam/trace'], strict=True)):
    if i == z['adam/reset_before_step']:
      state = tx.init(v)
    direction, state = tx.update(grads, state)
    v = v - z['adam/lrate'] * direction
    check('Adam', v, want, 1e-6)


def fixtures(root):
  """Yields name and check of each fixture; the check of an unknown kind is None.

  Pickles belong to checkpoints_test.py, files with `meta_json` to biggan_test.py and
  metrics_test.py.
  """
  for path in sorted(root.rglob('*')):
    folder, name = path.parent, str(path.relative_to(root).with_suffix(''))
    owners = [p.stem.removesuffix('vars') for p in folder.glob('*_vars.npz')]
    owned = any(path.stem.startswith(owner) for owner in owners)
    pickled = folder / f'{path.stem.removesuffix("_expected")}.pkl'
    if pickled.exists() or path.suffix not in ('.json', '.npz'):
      continue
    elif path.suffix == '.json':
      if (folder / f'{path.stem}_vars.npz').exists():
        yield name, partial(networks, folder, path.stem)
      elif {'cases', 'columns'} <= (keys := json.loads(path.read_text()).keys()):
        yield name, partial(schedule, path)
      elif 'G_kwargs' in keys:
        yield name, None
    elif path.stem in STANDALONE:
      yield name, partial(globals()[path.stem], path)
    elif not owned and 'checkpoints' not in path.parts:  # see biggan_test.py
      with np.load(path) as z:
        if 'meta_json' not in z.files:
          yield name, None


def pytest_generate_tests(metafunc):
  found = list(fixtures(Path(metafunc.config.getoption('--reference'))))
  if 'fixture' in metafunc.fixturenames:
    root = Path(metafunc.config.getoption('--reference'))
    trains = lambda name: (root / f'{name}_train.npz').exists()
    params = [
      pytest.param(f, marks=pytest.mark.slow if trains(name) else ())
      for name, f in found
    ]
    metafunc.parametrize('fixture', params, ids=[name for name, _ in found])


def test_fixture(fixture, request, record_parity):
  name = request.node.callspec.id
  assert fixture is not None, f'{name}: no test for this kind of file'
  check = Checks()
  fixture(check)
  assert check.worst, f'{name}: nothing was checked'
  report(name, check.worst, record_parity)
