"""The weights of another run that a run begins with; see `FineTuneConfig`.

Arrays of G, D and the EMA weights are taken where name and shape match, so the other
run may have another resolution or other classes. The optimizers, the count of images
and ADA's probability begin anew.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from gan_jax import UserError
from gan_jax.config import Config
from gan_jax.config.workdir import read_config
from gan_jax.models.base import GAN, Network, variable_shapes
from gan_jax.runtime.distributed import shared_errors
from gan_jax.runtime.sharding import replicate
from gan_jax.sampling.class_names import read_class_names
from gan_jax.storage.checkpoint import Checkpointer, open_checkpoint, saved_steps
from gan_jax.storage.nested import flatten
from gan_jax.storage.working_copy import open_workdir
from gan_jax.training.array_matches import ArrayMatch, format_matches, match_arrays
from gan_jax.training.class_mixtures import (
  ClassAxis,
  Mixtures,
  class_axes,
  mix,
  parse_mixtures,
)
from gan_jax.training.freezing import KEYS, frozen_parameters, path_of, spectral_layers
from gan_jax.training.train_state import TrainState

_FIELDS: dict[str, Network] = {'g': 'g', 'd': 'd', 'ema': 'g'}


def check_start(
  config: Config, workdir: Path, log: Callable[[str], Any] = lambda _: None
) -> None:
  """Checks the section `finetune` before a run writes or compiles anything.

  Collective: all processes must call it. A run that has a checkpoint goes on from that,
  and does not read the source again.

  Raises:
    UserError: frozen parameters do not exist or would be new, or the source cannot be
      read or does not match the model.
  """
  frozen = frozen_parameters(config)
  if saved_steps(workdir):
    return
  if config.finetune.source:
    with open_source(config) as source:
      log(source.describe())
    return
  for network, paths in frozen.items():
    if paths:
      raise UserError(
        f'{KEYS[network]} freezes {min(paths)}, and these weights would be '
        'new: name the run that they come from by finetune.source, or train on in the '
        'workdir of an imported or trained run.'
      )


@dataclasses.dataclass(frozen=True)
class Source:
  """A checkpoint of another run, compared with the model of a config.

  Attributes:
    name: of the run, for messages.
    shapes: of the saved fields 'g', 'd' and 'ema'.
    mixtures: of its classes in the new ones; None: classes are not mixed.
    axes: the arrays with an axis of classes.
    matches: the outcome of every array of G and D.
  """

  name: str
  checkpoints: Checkpointer
  step: int
  shapes: dict[str, Any]
  mixtures: Mixtures | None
  axes: dict[str, ClassAxis]
  matches: list[ArrayMatch]

  def describe(self) -> str:
    """What is taken, for the log."""
    return (
      f'weights of {self.name}, checkpoint {self.step}: {format_matches(self.matches)}'
    )

  def start(self, fresh: TrainState, mesh: Mesh) -> TrainState:
    """The first state of a run: `fresh`, with the arrays that are taken."""
    like = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), self.shapes)
    found = self.checkpoints.restore_part(self.step, like)
    taken = {match.path for match in self.matches if match.outcome == 'matched'}

    def field(name: str, network: Network) -> Any:
      arrays = flatten(found[name], '/')

      def choose(key_path: Any, x: Any) -> Any:
        path = path_of(key_path)
        where = f'{network}/{path}'
        if where not in taken:
          return x
        array, axis = np.asarray(arrays[path]), self.axes.get(where)
        if axis is None or self.mixtures is None:
          return array
        return mix(array, self.mixtures, axis)

      tree = jax.tree_util.tree_map_with_path(choose, getattr(fresh, name))
      return replicate(tree, mesh)

    fields = {name: field(name, network) for name, network in _FIELDS.items()}
    return dataclasses.replace(fresh, **fields)


@contextlib.contextmanager
def open_source(config: Config) -> Iterator[Source]:
  """The run that `config.finetune.source` names. Collective.

  Raises:
    UserError: as `check_start`.
  """
  section = config.finetune
  with contextlib.ExitStack() as stack:
    with shared_errors(), _named_errors():
      folder = stack.enter_context(open_workdir(section.source))
      gan = read_config(folder).gan
    with _named_errors():
      opened = open_checkpoint(folder, section.step or None)
      checkpoints, step = stack.enter_context(opened)
    shapes = {name: checkpoints.shapes(step, name) for name in _FIELDS}
    mixtures = _mixtures(config, gan, read_class_names(folder, gan.n_classes))
    axes = class_axes(config.gan)
    matches = _compare(config.gan, gan, shapes, {} if mixtures is None else axes)
    _check_matches(config, matches, axes)
    yield Source(section.source, checkpoints, step, shapes, mixtures, axes, matches)


@contextlib.contextmanager
def _named_errors() -> Iterator[None]:
  """Errors of the source name the key."""
  try:
    yield
  except UserError as error:
    raise UserError(f'finetune.source: {error}') from error


def _mixtures(config: Config, old: GAN, names: tuple[str, ...]) -> Mixtures | None:
  """The mixtures of old classes, if the config has some."""
  section, n_classes = config.finetune, config.gan.n_classes
  if not section.classes:
    return None
  for key, n in (('model', n_classes), (f'{section.source}: model', old.n_classes)):
    if not n:
      raise UserError(
        f'finetune.classes is {",".join(section.classes)}, but {key}.n_classes is 0: '
        'leave it out, or take models with classes.'
      )
  return parse_mixtures(section.classes, n_classes, old.n_classes, names)


def _compare(
  gan: GAN, old: GAN, saved: dict[str, Any], mixed: dict[str, ClassAxis]
) -> list[ArrayMatch]:
  """The outcomes for all arrays; those that are mixed count with their new classes."""
  matches = []
  networks = zip('gd', variable_shapes(gan), strict=True)
  for network, like in networks:

    def new_shape(key_path: Any, x: Any, network: str = network) -> Any:
      axis, shape = mixed.get(f'{network}/{path_of(key_path)}'), list(x.shape)
      if axis and shape[axis.axis : axis.axis + 1] == [axis.before + old.n_classes]:
        shape[axis.axis] = axis.before + gan.n_classes
      return jax.ShapeDtypeStruct(tuple(shape), x.dtype)

    shapes = jax.tree_util.tree_map_with_path(new_shape, saved[network])
    matches += match_arrays(shapes, like, network)
  return matches


def _check_matches(
  config: Config, matches: list[ArrayMatch], axes: dict[str, ClassAxis]
) -> None:
  section, source = config.finetune, f'finetune.source={config.finetune.source}'
  for network in 'gd':
    names = f'{network}/params/'
    if not any(m.outcome == 'matched' and m.path.startswith(names) for m in matches):
      raise UserError(
        f'{source} shares no parameter of {network.upper()} with this model, a '
        f'{type(config.gan).__name__}: take a run of the same family and widths.'
      )
  differing = [match for match in matches if match.outcome != 'matched']
  if differing and not section.partial:
    by_class = any(match.path in axes for match in differing) and not section.classes
    example = min(differing, key=lambda match: '/params/' not in match.path)
    mixing = 'mix its classes by finetune.classes, and ' if by_class else ''
    raise UserError(
      f'{source} does not match the model ({len(differing)} of {len(matches)} arrays '
      f'differ, such as {example.describe()}): {mixing}set finetune.partial=true '
      'to draw anew what it lacks.'
    )
  new = {match.path for match in matches if match.outcome == 're-initialised'}
  for network_, paths in frozen_parameters(config).items():
    layers = (f'{network_}/spectral/{layer}/u' for layer in spectral_layers(paths))
    for path in (*(f'{network_}/params/{path}' for path in sorted(paths)), *layers):
      if path in new:
        raise UserError(
          f'{KEYS[network_]} freezes what {source} does not have in this '
          f'shape, {path}: freeze only what is taken from it.'
        )
