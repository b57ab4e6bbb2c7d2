"""Imported checkpoint files of --reference against the outputs of the originals.

A fixture is a file or folder of weights. The expected outputs of `<name>.pkl` are in
`<name>_expected.npz`; those of folders are in an .npz beside them, whose metadata has
the settings. Tolerances are those of the README beside the fixtures.
"""

import dataclasses
import json
import re
from functools import partial
from pathlib import Path

import jax
import numpy as np

from gan_jax import importers
from gan_jax.importers import sources
from gan_jax.models.base import apply_network
from gan_jax.models.stylegan import StyleGAN
from gan_jax.storage import weights
from tests.parity.progressive_test import grown, phase_of, shrunk
from tests.parity.reference_files import cast, load, nhwc, on_one_device, report, under


def error(ours, theirs):
  ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
  assert ours.shape == theirs.shape, f'{ours.shape} for {theirs.shape}'
  worst = np.max(np.abs(ours - theirs), initial=0)
  return float(worst) if np.isfinite(worst) else np.inf


def relative(ours, theirs):
  return error(ours, theirs) / float(np.max(np.abs(theirs)))


def biggan_folder(folder, expected):
  z, checks = load(expected), {}
  settings = json.loads(str(z.pop('meta_json')))['kwargs']
  roles = ('G', 'G_ema', 'D')
  for role in roles:
    for path in sorted(folder.glob(f'{role}.*')):
      state, stored = weights.read_arrays(path), under(z, f'{role}/')
      wrong = [k for k, v in stored.items() if not np.array_equal(state[k], v)]
      checks[f'{role} tensors that differ'] = (float(len(wrong)), 0.0)
  source = sources.read_published(folder)
  # The weights do not contain the epsilons; a user would set them in the config.
  eps = {'sn_eps': settings['SN_eps'], 'bn_eps': settings['BN_eps']}
  for bits, image_tol, score_tol in ((64, 1e-9, 1e-10), (32, 5e-5, 1e-5)):
    with jax.enable_x64(bits == 64):
      gan = dataclasses.replace(source.gan, dtype=f'float{bits}', **eps)
      noise, y = z['in/z'].astype(f'float{bits}'), z['in/y']
      generate = jax.jit(gan.generate)
      for role, net in (('G', source.g), ('G_ema', source.ema)):
        if role == 'G' and not list(folder.glob('G.*')):
          continue
        image = generate(cast(net, f'float{bits}'), noise, y)
        want = nhwc(z[f'out/{role}_eval_f{bits}'])
        checks[f'{role} f{bits}'] = (error(image, want), image_tol)
      if source.d is not None:
        judge = jax.jit(
          partial(apply_network, gan.discriminator, train=False, eps=gan.sn_eps)
        )
        images = nhwc(z['in/x']).astype(f'float{bits}')
        score, _ = judge(cast(source.d, f'float{bits}'), images, y)
        want = z[f'out/D_eval_f{bits}']
        checks[f'D f{bits}'] = (relative(score, want), score_tol)
  checks |= optimizer(folder, source, z)
  return checks


def optimizer(folder, source, z):
  """Adam's moments of each parameter, by its official name."""
  checks = {}
  for side, moments in (('G', source.g_moments), ('D', source.d_moments)):
    if moments is None:
      assert not list(folder.glob(f'{side}_optim.pth')), (
        f'{side}_optim.pth was not read'
      )
      continue
    stored = under(z, f'{side}_optim/')
    table = importers.BIGGAN_G if side == 'G' else importers.BIGGAN_D
    if side == 'D' and source.gan.depth:
      table = importers.BIGGAN_DEEP_D
    for kind, tree in (('exp_avg', moments.first), ('exp_avg_sq', moments.second)):
      named = {k.split('/')[1]: v for k, v in stored.items() if k.endswith(f'/{kind}')}
      if named:
        want = importers.convert_biggan(named, table, {'params': tree})['params']
        worst = max(jax.tree.leaves(jax.tree.map(error, tree, want)))
        checks[f'{side} {kind}'] = (worst, 0.0)
    steps = {int(v) for k, v in stored.items() if k.endswith('/step')}
    if steps:
      checks[f'{side} steps'] = (float(abs(moments.steps - max(steps))), 0.0)
  return checks


def hugging_face(folder, expected):
  z = load(expected)
  source = sources.read_published(folder)
  gan = source.gan

  traces = []

  def draw(g, z, labels, truncation):  # z is already scaled
    traces.append(truncation)
    return gan.run_generator(gan.at_truncation(g, truncation), z, labels, train=False)[
      0
    ]

  draw, worst = jax.jit(draw), 0.0
  for i, truncation in enumerate(z['in/truncations']):
    noise = z['in/z'][i] if z['in/z'].ndim == 3 else z['in/z']
    image = draw(source.ema, noise, z['in/label'], np.float32(truncation))
    worst = max(worst, error(image, nhwc(z['out/G_f32'][i])))
  assert len(traces) == 1
  return {'eval f32': (worst, 5e-6)}


def nvidia(path, expected):
  z, checks = load(expected), {}
  source = sources.read_published(path)
  gan, phase = source.gan, phase_of(z['lod'], source.gan.res)
  narrow = min(gan.g_widths + gan.d_widths) <= 8
  tol = 2e-4 if narrow and gan.res >= 128 else 2e-5
  generate = jax.jit(partial(gan.generate, res=phase.res))
  for key, want in z.items():
    found = re.fullmatch(r'(G|Gs)_images(?:_psi([\d.]+))?', key)
    if not found:
      continue
    g = source.g if found[1] == 'G' else source.ema
    psi = np.float32(found[2] or 1)
    image = generate(g, z['latents'], z['labels'], psi, alpha=phase.alpha)
    checks[key] = (relative(grown(image, gan.res), nhwc(want)), tol)

  def judge(d, images, labels):
    if isinstance(gan, StyleGAN):
      return gan.discriminate(d, images, labels, phase), labels
    return gan.discriminate(d, images, phase)

  n = len(z['D_images'])
  group = min(gan.mbstd_group, n)
  order = np.arange(n).reshape(group, -1).T.reshape(-1)  # theirs are strided groups
  images = shrunk(nhwc(z['D_images'])[order], phase.res)
  outputs = on_one_device(judge)(source.d, images, z['D_labels'][order])
  for key, out in zip(('D_scores', 'D_label_logits'), outputs, strict=True):
    if key in z:
      restored = np.asarray(out)[np.argsort(order)]
      checks[key] = (relative(restored, z[key]), tol)
  raw_config, images = source.training_config(gan)
  stages = len(raw_config['schedule']['resolutions']) - 1
  part = images % 1_200_000  # a stage: 600,000 images and a fade over as many
  lod = stages - images // 1_200_000 - max(part - 600_000, 0) / 600_000
  checks['lod'] = (abs(lod - round(float(z['lod']), 5)), 1e-5)
  return checks


def fixtures(root):
  """Yields the path and the check of each file or folder of weights."""
  for path in sorted(root.rglob('*.pkl')):
    expected = path.with_name(f'{path.stem}_expected.npz')
    yield path, partial(nvidia, path, expected)
  for expected in sorted(root.rglob('*.npz')):
    folders = [p for p in sorted(expected.parent.iterdir()) if p.is_dir()]
    biggan = [f for f in folders if list(f.glob('G*.pth'))]
    hf = [f for f in folders if (f / 'pytorch_model.bin').exists()]
    if not (biggan or hf):
      continue
    with np.load(expected) as z:
      meta = json.loads(str(z['meta_json'])) if 'meta_json' in z.files else {}
    if 'layers' in meta.get('config', {}):
      for folder in hf:
        yield folder, partial(hugging_face, folder, expected)
    elif 'kwargs' in meta:
      for folder in biggan:
        yield folder, partial(biggan_folder, folder, expected)


def pytest_generate_tests(metafunc):
  root = Path(metafunc.config.getoption('--reference'))
  found = [(str(path.relative_to(root)), check) for path, check in fixtures(root)]
  metafunc.parametrize('check', [c for _, c in found], ids=[n for n, _ in found])


def test_imported_weights(check, request, record_parity):
  report(request.node.callspec.id, check(), record_parity)
