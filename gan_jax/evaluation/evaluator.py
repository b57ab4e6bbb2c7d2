"""Scores a generator against real images, by a protocol that the scores carry."""

import dataclasses
import difflib
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from tqdm import tqdm

from gan_jax import UserError, data
from gan_jax.evaluation.metrics import (
  CONDITIONAL,
  IMAGES_OF_PAIRS,
  IMAGES_OF_PATCHES,
  METRICS,
  PATHS,
  SPLITS,
  Observed,
  Seen,
  inception,
  ppl,
  small_network,
)
from gan_jax.evaluation.metrics.feature_network import FeatureNetwork, save_npz
from gan_jax.evaluation.metrics.features import (
  FeatureStats,
  InceptionScore,
  require_full_rank,
  split_borders,
)
from gan_jax.evaluation.metrics.images import Patches, Similarity
from gan_jax.models.base import GAN, Variables
from gan_jax.runtime.mesh import make_mesh
from gan_jax.sampling import samplers

MOST = 50_000  # generated images, and features that are held, unless told otherwise


@dataclasses.dataclass(frozen=True)
class Protocol:
  """How a score is taken. Beside the data and the metrics, this decides its value."""

  n: int = 0  # generated images; 0: as many as real ones, 50,000 at most
  reals: int = 0  # 0: all of the split
  truncation: float = np.inf  # entries of z beyond are drawn again
  psi: float = 1.0
  alpha: float = 1.0  # how far a growing GAN's resolution has faded in
  ema: bool = True
  standing: int = 16  # batches of new batch statistics; 0: the running ones
  seed: int = 0  # of the first image; the others count on from it
  batch: int = 64
  resizing: str = 'torch'  # of the Inception network; see metrics.inception.RESIZINGS


def default_cache() -> Path:
  """$GAN_JAX_CACHE, or ~/.cache/gan_jax."""
  return Path(os.environ.get('GAN_JAX_CACHE') or Path.home() / '.cache' / 'gan_jax')


def default_metrics(gan: GAN, res: int, reals: int) -> list[str]:
  """All that needs no file of weights and that such images can be scored with."""
  names = ['fd_small'] if reals > small_network.DIM else []
  names += ['kid_small', 'prdc_small']
  if gan.n_classes:
    names.append('accuracy_small')
  if res >= 16 and res & (res - 1) == 0:
    names.append('swd')
  return names + (['msssim'] if res % 32 == 0 else [])


class Evaluator:
  """Scores the generators of one family on one dataset; made once, used often.

  The sampler and the networks are compiled once, and real images are looked at once:
  their statistics are kept in the cache under the stamp of the protocol.
  """

  def __init__(
    self,
    gan: GAN,
    dataset: data.Dataset,
    names: Sequence[str] = (),
    protocol: Protocol | None = None,
    *,
    res: int = 0,
    split: str = 'train',
    inception_file: str | None = None,
    lpips_files: str | None = None,
    cache: Path | None = None,
    mesh: Mesh | None = None,
    progress: bool = True,
  ):
    """
    Args:
      names: of METRICS and PATHS; none: `default_metrics`.
      res: what a growing run has come to; 0: the final resolution.
      split: of the dataset, for the stamp.
      inception_file, lpips_files: weights, where a metric needs them; without, the
        environment says where they are.
      mesh: devices of this process. Several processes share the images.

    Raises:
      UserError: an unknown metric, a missing file of weights, or too few images.
    """
    res = self._res = res or gan.res
    self.gan, self.dataset = gan, dataset.downsampled(gan.res // res)
    self.cache, self.progress = cache or default_cache(), progress
    self.mesh = mesh or make_mesh(jax.local_devices())
    given = protocol or Protocol()
    there = len(dataset.examples)
    if given.reals > there:
      raise UserError(
        f'{given.reals} real images are asked for; {dataset.name} has {there}.'
      )
    reals = given.reals or there
    batch = -(-given.batch // self.mesh.size) * self.mesh.size
    self.protocol = dataclasses.replace(
      given, reals=reals, n=given.n or min(reals, MOST), batch=batch
    )
    self.names = list(names) or default_metrics(gan, res, reals)
    self._check_names()
    self._about = {
      'data': dataset.name,
      'split': split,
      'res': res,
      'channels': gan.channels,
      'content': content(self.dataset),
    }
    self._networks: dict[str, FeatureNetwork] = {}
    self._real: dict[str, Seen] = {}
    self._sampler = samplers.make_sampler(gan, self.mesh, res)
    sources = {METRICS[name].source for name in self.names if name in METRICS}
    if 'inception' in sources:
      self._networks['inception'] = inception.load(
        inception_file, self.mesh, resizing=self.protocol.resizing, batch=batch
      )
    if 'small' in sources:
      self._networks['small'] = small_network.load(
        self._small_sample, dataset.n_classes, self._about, self.cache, self.mesh
      )
    self._sources = sorted(sources)
    for name in self.names:
      if name in ('fid', 'fd_small'):  # before anything is drawn
        dim = self._networks[METRICS[name].source].dim
        require_full_rank(reals, dim, 'real')
        require_full_rank(self.protocol.n, dim, 'generated')
    self._lpips = None
    if any(name in PATHS for name in self.names):
      self._lpips = ppl.load(lpips_files)

  def _check_names(self) -> None:
    known = [*METRICS, *PATHS]
    for name in self.names:
      if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f' (did you mean {near[0]}?)' if near else ''
        raise UserError(
          f'--metrics: there is no {name!r}{hint}; there are {", ".join(known)}.'
        )
      if name in CONDITIONAL and not self.gan.n_classes:
        raise UserError(f'{name} needs a model with classes, and this one has none.')

  @property
  def best(self) -> dict[str, str]:
    """Of every score it gives, the 'min' or the 'max'; '' where neither is better."""
    found: dict[str, str] = {}
    for name in self.names:
      found |= METRICS[name].best if name in METRICS else {name: 'min'}
    finer = {f'swd_{2 * self._res << i}' for i in range(7)}
    return {name: best for name, best in found.items() if name not in finer}

  def stamp(self, name: str, protocol: Protocol) -> dict[str, Any]:
    """All that the value of a metric depends on beside the model, as JSON."""
    p = protocol
    shared = {
      **self._about,
      'n': p.n,
      'seeds': f'{p.seed}-{p.seed + p.n - 1}',
      'ema': p.ema,
      'standing': f'{p.standing} x {p.batch}' if p.standing else 'running',
    }
    if name in PATHS:
      assert self._lpips
      return {**shared, 'settings': '1%-99%, step 1e-4', **self._lpips[1]}
    metric = METRICS[name]
    network = self._networks.get(metric.source)
    return {
      **shared,
      'reals': p.reals,
      'truncation': None if np.isinf(p.truncation) else p.truncation,
      'psi': p.psi,
      'alpha': p.alpha,
      'settings': metric.settings,
      **(network.stamp if network else {}),
    }

  def scores(self, g: Variables, **changes: Any) -> dict[str, float]:
    """Every score of a generator by name; see `lines`."""
    return {line['metric']: line['value'] for line in self.lines(g, **changes)}

  def lines(self, g: Variables, **changes: Any) -> list[dict[str, Any]]:
    """Every score of a generator, from one pass over its pictures, as JSON lines.

    A line has the score's name (`metric`), its `value`, whether the `best` is the
    'min', the 'max' or neither, and the `stamp`.

    Args:
      g: its variables, on the host or on any devices.
      changes: fields of the Protocol that differ for this once.

    Raises:
      UserError: features that are not finite, or too few images for a score.
    """
    protocol = dataclasses.replace(self.protocol, **changes)
    g = jax.tree.map(_addressable, g)
    require_finite(g)
    g = jax.device_put(g, NamedSharding(self.mesh, P()))
    real = self._reals()
    fake = self._look(
      self.pictures(g, protocol, self._share(protocol.n, protocol.seed)),
      protocol.n,
      self._sources,
      'generated',
    )
    found = []
    for name in self.names:
      if name in METRICS:
        metric = METRICS[name]
        values = metric.measure(real[metric.source], fake[metric.source])
      else:
        values = {name: self._path_length(name, g, protocol)}
      stamp = self.stamp(name, protocol)
      found += [
        {'metric': score, 'value': value, 'best': self.best[score], 'stamp': stamp}
        for score, value in values.items()
      ]
    return found

  def _path_length(self, name: str, g: Variables, protocol: Protocol) -> float:
    assert self._lpips
    net = self._lpips[0]
    seeds = np.arange(protocol.seed, protocol.seed + protocol.n, dtype=np.uint32)
    perceived = lambda a, b: ppl.distance(net, a, b)
    return ppl.path_length(self.gan, g, PATHS[name], perceived, seeds, self.mesh)

  def pictures(
    self, g: Variables, protocol: Protocol, seeds: np.ndarray
  ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """uint8 pictures of the seeds and their classes, in batches; all sampling."""
    p, gan = protocol, self.gan
    one_hot = np.eye(max(gan.n_classes, 1), dtype=np.float32)
    if p.standing:
      g = samplers.standing_statistics(
        gan, self.mesh, g, p.standing, p.batch, p.truncation, p.psi
      )
    for start in range(0, len(seeds), p.batch):
      n = len(seeds[start : start + p.batch])
      rows = np.minimum(np.arange(start, start + p.batch), start + n - 1)
      z = np.asarray(samplers.latents(seeds[rows], gan.dim_z, p.truncation))
      labels = np.asarray(samplers.labels_from_seeds(seeds[rows], gan.n_classes))
      images = self._sampler(g, z, one_hot[labels], p.psi, seeds[rows], p.alpha)
      yield np.asarray(images)[:n], labels[:n]

  def _reals(self) -> dict[str, Seen]:
    """What each source saw of the real images; from memory, the cache, or now.

    Sources that the cache knows nothing of share one pass over the images.
    """
    paths = {source: self._real_path(source) for source in self._sources}
    for source, path in paths.items():
      if source not in self._real and path.is_file():
        try:
          with path.open('rb') as f, np.load(f, allow_pickle=False) as z:
            arrays = {k: z[k] for k in z.files}
          self._real[source] = _SEEN[source].restore(arrays)
        except (zipfile.BadZipFile, EOFError, KeyError, ValueError):
          tqdm.write(f'{path} is damaged and is made anew')
    missing = [source for source in self._sources if source not in self._real]
    if not missing:
      return self._real
    order = real_order(len(self.dataset.examples), self.protocol.reals)
    batches = read(self.dataset, self._share_of(order), self.protocol.batch)
    for source, seen in self._look(batches, len(order), missing, 'real').items():
      self._real[source] = seen
      if jax.process_index() == 0:
        save_npz(paths[source], seen.arrays())
    return self._real

  def _real_path(self, source: str) -> Path:
    """The file in the cache, named by all that its statistics depend on."""
    network = self._networks.get(source)
    key = {
      **self._about,
      'reals': self.protocol.reals,
      'source': source,
      'keep': self._keep(source),
      **(network.stamp if network else {}),
    }
    text = json.dumps(key, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return self.cache / f'real-{source}-{digest[:16]}.npz'

  def _look(
    self,
    batches: Iterator[tuple[np.ndarray, np.ndarray]],
    n: int,
    sources: Sequence[str],
    what: str,
  ) -> dict[str, Seen]:
    """Shows this process's share of n images to the sources, joined over processes."""
    if not sources:
      return {}
    first = int(self._share(n, 0)[:1].sum())
    seen = {source: self._new(source, n, first) for source in sources}
    hidden = not self.progress or jax.process_index() > 0
    with tqdm(total=n, unit='img', desc=what, disable=hidden, leave=False) as bar:
      for images, labels in batches:
        for source in sources:
          seen[source].update(images, labels)
        bar.update(len(images) * jax.process_count())
    return {source: gathered(x) for source, x in seen.items()}

  def _new(self, source: str, n: int, first: int) -> Seen:
    """An empty keeper of the images from number `first` on."""
    if source == 'patches':
      return Patches(self._keep(source), first)
    if source == 'pairs':
      return Similarity(self._keep(source), first)
    network = self._networks[source]
    score = None
    if source == 'inception':
      score = InceptionScore(split_borders(n, SPLITS), network.classes, first)
    keep = max(self._keep(source) - first, 0)
    return Observed(network, FeatureStats(network.dim, keep), score)

  def _keep(self, source: str) -> int:
    """How many images a source holds something of, on both sides."""
    if source == 'patches':
      return min(IMAGES_OF_PATCHES, self.protocol.n, self.protocol.reals)
    return IMAGES_OF_PAIRS if source == 'pairs' else MOST

  def _share(self, n: int, first: int) -> np.ndarray:
    """The seeds of this process's images, uint32, among n from `first` on."""
    return self._share_of(np.arange(first, first + n, dtype=np.uint32))

  def _share_of(self, whole: np.ndarray) -> np.ndarray:
    """Whole batches that follow each other: joined in order they are the stream."""
    batch, processes = self.protocol.batch, jax.process_count()
    batches = -(-len(whole) // batch)
    start, end = (
      batch * (batches * (jax.process_index() + i) // processes) for i in (0, 1)
    )
    return whole[start:end]

  def _small_sample(self) -> tuple[np.ndarray, np.ndarray]:
    order = real_order(len(self.dataset.examples), small_network.IMAGES)
    parts = list(read(self.dataset, order, 512))
    images, labels = (np.concatenate(x) for x in zip(*parts, strict=True))
    return images, labels


_SEEN: dict[str, Any] = {
  'inception': Observed,
  'small': Observed,
  'patches': Patches,
  'pairs': Similarity,
}


def _addressable(x: Any) -> Any:
  """A replicated array as one that this process alone can use."""
  return x.addressable_data(0) if isinstance(x, jax.Array) else x


def require_finite(g: Variables) -> None:
  """Refuses a generator that would draw NaN, which bytes do not show.

  Raises:
    UserError: a variable is not finite.
  """
  for path, x in jax.tree_util.tree_leaves_with_path(g):
    if not np.isfinite(np.asarray(x)).all():
      name = jax.tree_util.keystr(path, simple=True, separator='/')
      raise UserError(f'the generator cannot be scored: {name} holds NaN or infinity.')


def gathered(seen: Any) -> Any:
  """What all processes saw, joined in their order; every process gets it."""
  if jax.process_count() == 1:
    return seen
  packed = io.BytesIO()
  np.savez(packed, allow_pickle=False, **seen.arrays())
  mine = np.frombuffer(packed.getvalue(), np.uint8)
  sizes = multihost_utils.process_allgather(np.array(len(mine))).ravel()
  padded = np.pad(mine, (0, int(sizes.max()) - len(mine)))
  parts = multihost_utils.process_allgather(padded)
  joined = None
  for part, size in zip(parts, sizes, strict=True):
    with np.load(io.BytesIO(part[:size].tobytes()), allow_pickle=False) as z:
      other = type(seen).restore({k: z[k] for k in z.files})
    if joined is None:
      joined = other
    else:
      joined.merge(other)
  return joined


def real_order(total: int, n: int) -> np.ndarray:
  """Which n of the real images are looked at, and in which order; always the same.

  Shuffled, as datasets are often sorted by class.
  """
  return np.random.Generator(np.random.Philox(0)).permutation(total)[:n]


def read(
  dataset: data.Dataset, order: np.ndarray, batch: int, threads: int = 8
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Images uint8 [b, res, res, c] and labels int32 [b], the last batch shorter."""
  with ThreadPoolExecutor(threads) as pool:
    for start in range(0, len(order), batch):
      part = [int(i) for i in order[start : start + batch]]
      images, labels = zip(*pool.map(dataset.examples.__getitem__, part), strict=True)
      yield np.stack(images), np.array(labels, np.int32)


def content(dataset: data.Dataset) -> str:
  """A fingerprint of a dataset: its size, and 64 of its images with their labels."""
  total = len(dataset.examples)
  digest = hashlib.sha256(f'{total} {dataset.n_classes}'.encode())
  for i in np.linspace(0, total - 1, min(64, total)).astype(int):
    image, label = dataset.examples[int(i)]
    digest.update(np.ascontiguousarray(image).tobytes() + str(int(label)).encode())
  return digest.hexdigest()[:16]
