"""Every metric, with and without labels, for 1, 3 and 4 channels: scores or why not."""

import dataclasses
import importlib.util
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import UserError, data
from gan_jax.data.dataset import InMemoryExamples
from gan_jax.evaluation.applicability import (
  DEFAULT_METRICS,
  check_metric,
  fewer_images,
  needs_images,
)
from gan_jax.evaluation.evaluator import Evaluator
from gan_jax.evaluation.metrics import (
  METRIC_NAMES,
  METRICS,
  SEPARABILITY,
  inception,
  lpips,
  prd,
  small_network,
)
from gan_jax.evaluation.metrics.feature_network import FeatureNetwork
from gan_jax.evaluation.metrics.named_network import NamedNetwork, NamedNetworks
from gan_jax.evaluation.protocol import EvaluationProtocol
from gan_jax.evaluation.real_images import without_images
from gan_jax.evaluation.statistics_files import StatisticsFile
from gan_jax.runtime.mesh import make_mesh

N = 100  # images: more than the features of the small network
RES = 32
FEATURES = 8


@dataclasses.dataclass(frozen=True)
class LinearGAN:
  """Images are a linear function of z, brighter for later classes."""

  channels: int = 3
  n_classes: int = 0
  res: int = RES
  dim_z: int = 4
  truncation_space = 'z'
  has_batch_stats = False
  style_based = None

  def size(self, res=0):
    return (res or self.res,) * 2

  def init(self):
    shape = self.dim_z, self.res * self.res * self.channels
    return {'w': np.random.default_rng(0).normal(0, 0.3, shape).astype(np.float32)}

  def generate(self, g, z, labels, psi=1.0, *, keys=None, res=0, alpha=1.0):
    x = (psi * z @ g['w']).reshape(-1, self.res, self.res, self.channels)
    if labels.ndim == 2:
      x += (labels @ jnp.arange(self.n_classes, dtype=x.dtype))[:, None, None, None] / 4
    return jnp.clip(x, -1, 1)


def real_images(channels, classes):
  rng = np.random.default_rng(1)
  images = rng.integers(0, 256, (N, RES, RES, channels), np.uint8)
  labels = np.arange(N) % max(len(classes), 1)
  images //= 1 + labels.astype(np.uint8)[:, None, None, None]
  return data.Dataset('pets', InMemoryExamples(images, labels), tuple(classes))


def project(images):
  """A feature network without weights, for one and for three channels."""
  assert images.shape[-1] in (1, 3)
  grey = images.mean(-1).reshape(len(images), -1) / 255
  directions = np.random.default_rng(2).normal(0, 1, (grey.shape[1], FEATURES + 4))
  features = (grey @ directions).astype(np.float32)
  return features[:, :FEATURES], features[:, FEATURES:]


def named(channels=3):
  """A feature network that the user names, and a classifier of two attributes."""
  shape = dict(batch=0, side=0, channels=channels, dtype=np.uint8)
  means = lambda x: x.astype(jnp.float32).mean((2, 3))[:, :FEATURES]
  network = NamedNetwork('net', 'abc', FEATURES, call=means, **shape)
  brightness = lambda x: means(x)[:, :2] - jnp.array([[100.0, 127.0]])
  return NamedNetworks(network, (network._replace(dim=2, call=brightness),))


def square_distance(weights, a, b):
  assert a.shape[-1] == 3
  return jnp.square(a - b).mean((1, 2, 3))


@pytest.fixture(scope='module')
def stub_networks():
  network = FeatureNetwork('stub', FEATURES, 4, {'network': 'stub'}, project)
  with pytest.MonkeyPatch.context() as patch:
    for module in (inception, small_network):
      patch.setattr(module, 'load', lambda *args, **options: network)
    patch.setattr(lpips, 'load', lambda paths: (None, {'network': 'stub'}))
    patch.setattr(lpips, 'distance', square_distance)
    patch.setattr(prd, 'RUNS', 1)
    yield


@pytest.fixture(scope='module')
def make_evaluator(stub_networks, tmp_path_factory):
  """A function (channels, classes, metrics) -> Evaluator on one device."""
  cache, mesh = tmp_path_factory.mktemp('cache'), make_mesh(jax.devices()[:1])

  fields = {field.name for field in dataclasses.fields(EvaluationProtocol)}

  def make(channels, classes, metrics, **options):
    how = {name: options.pop(name) for name in {*options} & fields}
    return Evaluator(
      LinearGAN(channels, len(classes)),
      real_images(channels, classes),
      metrics,
      EvaluationProtocol(**{'num': N, 'swd_images': 8, **how}),  # more take seconds
      cache=cache,
      mesh=mesh,
      progress=False,
      **{'named': named(min(channels, 3)), **options},
    )

  return make


@pytest.fixture(
  scope='module',
  params=[(c, names) for c in (1, 3, 4) for names in ('', 'abc')],
  ids=lambda param: f'{param[0]} channels, {len(param[1])} classes',
)
def case(request, make_evaluator):
  """Channels, classes, the sentences of what does not apply, and all other scores."""
  channels, classes = request.param
  sentences = {}
  for name in METRIC_NAMES:
    try:
      check_metric(
        name,
        LinearGAN(channels, len(classes)),
        real_images(channels, classes),
        RES,
        EvaluationProtocol(num=N, reals=N),
        named=named(min(channels, 3)),
      )
    except UserError as error:
      sentences[name] = str(error)
  metrics = [name for name in METRIC_NAMES if name not in sentences]
  evaluator = make_evaluator(channels, classes, metrics)
  records = evaluator.evaluate(LinearGAN(channels, len(classes)).init())
  assert json.loads(json.dumps(records)) == records
  return channels, classes, sentences, {record['metric']: record for record in records}


@pytest.mark.parametrize('name', METRIC_NAMES)
def test_scores_or_one_sentence(case, name):
  channels, classes, sentences, records = case
  if name == 'fid':
    words = 'fid: 100 real images leave the covariance of 2048 features'
  elif name.startswith('ppl_w'):
    words = 'ppl in w needs a StyleGAN, and this is a LinearGAN'
  elif not classes and name.startswith(('accuracy', 'intra')):
    words = f'{name} needs a conditional model, and this one has no classes'
  else:
    words = None
  if words:
    assert sentences[name].startswith(words)
    assert '\n' not in sentences[name] and name not in records
    return
  scores = METRICS[name].best if name in METRICS else [name]
  scores = ['separability_z'] if name == SEPARABILITY else scores
  above = {f'swd_{size}' for size in (64, 128, 256, 512, 1024)}
  for score in {*scores} - above:
    assert math.isfinite(records[score]['value'])
    stamp = records[score]['stamp']
    assert stamp.get('background') == ('white' if channels == 4 else None)
    if name == SEPARABILITY or name.endswith('_features'):
      assert (stamp['network'], stamp['weights']) == ('net', 'abc')


def test_reals_are_mirrored_for_the_metrics_whose_originals_do(make_evaluator):
  names = ['fd_small', 'kid_small', 'swd', 'msssim']
  g = LinearGAN().init()
  evaluate = lambda **options: {
    record['metric']: record
    for record in make_evaluator(3, '', names, **options).evaluate(g)
  }
  plain, mirrored = evaluate(), evaluate(flip=True)
  for name, record in mirrored.items():
    flips = name.startswith(('fd', 'swd', 'msssim'))
    assert record['stamp']['mirror'] is flips
    assert plain[name]['stamp']['mirror'] is False
    changes = record['value'] != plain[name]['value']
    assert changes is (flips and name != 'msssim')
  assert evaluate(flip=True, mirror='never')['fd_small'] == plain['fd_small']
  always = evaluate(mirror='always')['fd_small']
  assert always == mirrored['fd_small']


def test_stamps_say_what_the_protocol_decides(make_evaluator):
  names = ['kid_small', 'is', 'swd', 'msssim', 'ppl_z_full']
  evaluator = make_evaluator(3, '', names, kid_subset_size=70, is_splits=4, is_seed=3,
                             msssim_images=60, ppl_samples=33, ppl_crop='face',
                             ppl_noise='fresh', kid_subsets=7, kid_seed=5)  # fmt: skip
  records = {x['metric']: x for x in evaluator.evaluate(LinearGAN().init())}
  stamps = {name: record['stamp'] for name, record in records.items()}
  pick = lambda name, *keys: [stamps[name][key] for key in keys]
  assert pick('kid_small', 'subsets', 'subset_size', 'subset_seed') == [7, 70, 5]
  assert pick('is', 'splits', 'shuffle_seed') == [4, 3]
  assert pick('swd', 'images') == [8] and pick('msssim', 'images') == [60]
  path = pick('ppl_z_full', 'n', 'seeds', 'crop', 'noise')
  assert path == [33, '0-32', 'face', 'fresh for each 16 paths']
  # What is asked for is what is computed.
  default = make_evaluator(3, '', names).evaluate(LinearGAN().init())
  values = {x['metric']: x['value'] for x in default}
  for name in ('kid_small', 'is', 'msssim', 'ppl_z_full'):
    assert records[name]['value'] != values[name], name


def test_fewer_images_than_a_protocol_takes_are_said():
  asked = EvaluationProtocol.named('progan', {})
  dataset = real_images(3, '')
  say = lambda names, asked: fewer_images(
    names, asked, asked.resolve('pets', N, devices=1), dataset
  )
  assert say(['swd', 'msssim'], asked) == [
    'pets has 100 real images, where the protocol progan takes 50000.',
    'swd compares 100 images instead of 16384, since pets has no more.',
  ]
  assert say(['swd', 'msssim'], EvaluationProtocol()) == [
    'swd compares 100 images instead of 16384, since pets has no more.',
    'msssim compares 100 images instead of 20000, since pets has no more.',
  ]
  # Fewer images that the user asks for need no note.
  assert say(['swd', 'msssim'], EvaluationProtocol(num=50)) == []
  assert say(['kid'], EvaluationProtocol()) == []


def test_default_metrics_leave_out_what_does_not_apply(make_evaluator):
  lines = []
  evaluator = make_evaluator(4, '', (), log=lines.append)
  assert evaluator.metrics == [x for x in DEFAULT_METRICS if x != 'accuracy_small']
  assert lines == [
    'left out: accuracy_small needs a conditional model, and this one has no classes.'
  ]


def test_a_class_without_real_images_leaves_out_its_metric_only(make_evaluator):
  lines = []
  options = dict(log=lines.append, defaults=('accuracy_small', 'kid_small'))
  evaluator = make_evaluator(3, 'abcd', (), **options)
  labels = np.minimum(evaluator.dataset.examples.labels, 2)  # none of class d
  evaluator.dataset.examples.labels[:] = labels
  records = evaluator.evaluate(LinearGAN(3, 4).init())
  assert [record['metric'] for record in records] == ['kid_small', 'kid_small_std']
  assert len(lines) == 1 and lines[0].startswith('left out: accuracy_small: a classif')
  asked = make_evaluator(3, 'abcd', ['accuracy_small'])
  asked.dataset.examples.labels[:] = labels
  asked.real_statistics = evaluator.real_statistics
  with pytest.raises(UserError, match='no real image shows class 3'):
    asked.evaluate(LinearGAN(3, 4).init())


@pytest.mark.parametrize(
  'name, gan, classes, changes, words',
  [
    ('accuracy', LinearGAN(n_classes=3), '', {}, 'labeled images, and pets has no'),
    ('intra_fd_small', LinearGAN(n_classes=3), 'ab', {}, 'has 3 classes, and pets has'),
    ('accuracy', LinearGAN(n_classes=1), 'a', {}, 'at least 2 classes'),
    (
      'kid',
      LinearGAN(),
      '',
      {'num': 1},
      'at least 2 generated images, and there are 1',
    ),
    ('kid', LinearGAN(), '', {'reals': 1}, 'at least 2 real images, and there are 1'),
    ('prdc_small', LinearGAN(), '', {'num': 3}, 'at least 4 generated images'),
    ('is', LinearGAN(), '', {'num': 9}, 'at least 10 generated images'),
    ('is', LinearGAN(), '', {'is_splits': 101}, 'at least 101 generated images'),
    (
      'ppl_z_end',
      LinearGAN(res=16),
      '',
      {'ppl_crop': 'face'},
      'ppl of the face crop needs images of at least 32 pixels, .* have 16',
    ),
    ('ppl_z_end', LinearGAN(res=8), '', {}, 'ppl needs images of at least 16 pixels'),
    ('msssim', LinearGAN(), '', {'num': 1}, 'at least 2 generated images'),
    ('prd', LinearGAN(), '', {'num': 19}, 'at least 20 generated images'),
    ('memorization_pixels', LinearGAN(), '', {'reals': 3}, 'at least 4 real images'),
    ('kid_features', LinearGAN(), '', {}, 'kid_features needs a feature network: name'),
    ('separability', LinearGAN(), '', {}, 'pets has no labels of two classes or more'),
    ('separability', LinearGAN(), 'ab', {'num': 19}, 'at least 20 generated images'),
    ('fd_small', LinearGAN(), '', {'num': 96}, '96 generated images .* at least 97'),
    ('swd', LinearGAN(res=24), '', {}, '24 pixels cannot be downsampled to 16'),
    ('msssim', LinearGAN(res=16), '', {}, '16 pixels cannot be downsampled five'),
    (
      'fod',
      LinearGAN(),
      '',
      {},
      "no metric 'fod' .*mean 'fid'.*, and score.metrics in a config",
    ),
  ],
)
def test_what_does_not_apply_is_known_beforehand(name, gan, classes, changes, words):
  protocol = EvaluationProtocol(**{'num': N, 'reals': N, **changes})
  with pytest.raises(UserError, match=words):
    check_metric(name, gan, real_images(3, classes), gan.res, protocol)
  check_metric('swd' if name != 'swd' else 'kid', LinearGAN(), real_images(3, ''), RES,
               EvaluationProtocol(num=N, reals=N))  # fmt: skip


def test_named_networks_decide_what_applies():
  case = LinearGAN(), real_images(3, ''), RES
  few = EvaluationProtocol(num=N, reals=FEATURES)
  with pytest.raises(
    UserError, match='fd_features: 8 real .* of 8 features .* least 9'
  ):
    check_metric('fd_features', *case, few, named=named())
  for channels, name in ((1, 'kid_features'), (4, 'separability')):
    with pytest.raises(UserError, match=f'net takes images of {channels} channels'):
      check_metric(name, *case, few, named=named(channels))


def test_memorization_needs_the_real_images_beside_their_statistics():
  given = StatisticsFile('mu.npz', None, 90, True, 'abc')
  protocol = EvaluationProtocol(num=N, reals=90)
  case = LinearGAN(), without_images(LinearGAN(), 'mu.npz'), RES, protocol
  check_metric('prd', *case, given)
  with pytest.raises(UserError, match='memorization needs the real images, and there'):
    check_metric('memorization', *case, given)
  needing = {x for x in METRIC_NAMES if needs_images(x, named())}
  assert not {'fid', 'prd', 'ppl_z_full', SEPARABILITY} & needing
  assert {'memorization', 'swd', 'fd_features'} < needing
  assert needs_images(SEPARABILITY, NamedNetworks())


def test_what_scikit_learn_computes_says_so_where_it_is_missing(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  protocol = EvaluationProtocol(num=N, reals=N)
  for name in ('prd_small', SEPARABILITY):
    with pytest.raises(UserError, match=rf"{name} needs .*'gan_jax\[scores\]'"):
      check_metric(name, LinearGAN(), real_images(3, 'ab'), RES, protocol)


def test_the_network_of_the_labels_classifies_without_named_ones(make_evaluator):
  none = dict(named=NamedNetworks())
  records = make_evaluator(3, 'abcd', [SEPARABILITY], **none).evaluate(
    LinearGAN(3, 4).init()
  )
  (record,) = records
  assert record['metric'] == 'separability_z' and record['best'] == 'min'
  assert record['stamp']['network'] == 'stub' and 1 <= record['value'] <= 2**4


def test_separability_may_take_its_own_number_of_images(make_evaluator):
  none, g = dict(named=NamedNetworks()), LinearGAN(3, 4).init()
  both = [SEPARABILITY, 'kid_small']
  own = make_evaluator(3, 'abcd', both, separability_images=60, **none).evaluate(g)
  all_60 = make_evaluator(3, 'abcd', both, num=60, **none).evaluate(g)
  separability, kid, _ = own
  assert separability == all_60[0] and separability['stamp']['seeds'] == '0-59'
  assert (separability['stamp']['n'], kid['stamp']['n']) == (60, N)
  assert kid['value'] != all_60[1]['value']


@pytest.mark.parametrize('flip', [True, False])
def test_mirrored_copies_are_memorized_where_training_flips(make_evaluator, flip):
  metrics = ['memorization_small', 'memorization_pixels']
  evaluator = make_evaluator(3, '', metrics, flip=flip)
  images = real_images(3, '').examples.images[:, :, ::-1]
  labels = np.zeros(N, np.int32)
  evaluator.generate = lambda g, protocol, seeds: iter([(images, labels)])
  records = {x['metric']: x for x in evaluator.evaluate(LinearGAN().init())}
  for name in metrics:
    assert (records[name]['value'] == 1) is flip
    assert records[name]['stamp']['mirror'] is flip
