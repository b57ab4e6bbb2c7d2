"""The metrics that need the generator: perceptual path lengths and separability."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

from jax.sharding import Mesh

from gan_jax.evaluation.metrics import PATHS, SEPARABILITY, lpips, transparency
from gan_jax.evaluation.metrics.perceptual_path_length import path_batch, path_length
from gan_jax.evaluation.metrics.separability import (
  Attributes,
  latent_spaces,
  separability,
)
from gan_jax.evaluation.protocol import EvaluationProtocol
from gan_jax.evaluation.real_images import images_stamp
from gan_jax.models.base import GAN, Variables


class LatentMetric(Protocol):
  """A group of scores that are computed from the generator and its latents."""

  @property
  def best(self) -> dict[str, str]:
    """Whether the 'min' or the 'max' of each score is best."""
    ...

  def sources(self, protocol: EvaluationProtocol) -> dict[str, int]:
    """The statistics of generated images that it needs: source -> images."""
    ...

  def stamp(self, protocol: EvaluationProtocol) -> dict[str, Any]:
    """All that the scores depend on besides the model, as JSON."""
    ...

  def measure(
    self, g: Variables, protocol: EvaluationProtocol, statistics: Mapping[str, Any]
  ) -> dict[str, float]:
    """The scores of a generator.

    Args:
      g: variables, replicated over the mesh.
      statistics: of the generated images, by source.
    """
    ...


@dataclasses.dataclass(frozen=True)
class PathLength:
  """A perceptual path length; it needs no real images."""

  name: str  # a key of PATHS
  gan: GAN
  res: int  # current resolution of a growing GAN
  mesh: Mesh
  lpips: tuple[lpips.Lpips, dict[str, str]]  # weights, and their stamp

  @property
  def best(self) -> dict[str, str]:
    return {self.name: 'min'}

  def sources(self, protocol: EvaluationProtocol) -> dict[str, int]:
    return {}

  def stamp(self, protocol: EvaluationProtocol) -> dict[str, Any]:
    return {
      **images_stamp(self.gan, self.res),
      **(transparency.STAMP if self.gan.channels == 4 else {}),
      **protocol.generator_stamp(),
      **protocol.path_stamp(path_batch(self.mesh)),
      **self.lpips[1],
    }

  def measure(
    self, g: Variables, protocol: EvaluationProtocol, statistics: Mapping[str, Any]
  ) -> dict[str, float]:
    value = path_length(
      self.gan,
      g,
      PATHS[self.name],
      lambda a, b: lpips.distance(self.lpips[0], a, b),
      protocol.path_seeds,
      self.mesh,
      crop=protocol.ppl_crop == 'face',
      fresh_noise=protocol.ppl_noise == 'fresh',
    )
    return {self.name: value}


@dataclasses.dataclass(frozen=True)
class Separability:
  """Linear separability of the latents by the attributes of their images."""

  gan: GAN
  attributes: Attributes
  dataset_stamp: Mapping[str, Any]

  @property
  def best(self) -> dict[str, str]:
    spaces = 'zw' if self.gan.style_based else 'z'
    return {f'{SEPARABILITY}_{space}': 'min' for space in spaces}

  def sources(self, protocol: EvaluationProtocol) -> dict[str, int]:
    return {'attributes': protocol.separability_images}

  def stamp(self, protocol: EvaluationProtocol) -> dict[str, Any]:
    p = dataclasses.replace(protocol, num=protocol.separability_images)
    return {
      **self.dataset_stamp,
      **p.generator_stamp(),
      **p.images_stamp(False),
      **self.attributes.stamp,
    }

  def measure(
    self, g: Variables, protocol: EvaluationProtocol, statistics: Mapping[str, Any]
  ) -> dict[str, float]:
    spaces = latent_spaces(
      self.gan, g, protocol.separability_seeds, protocol.truncation, protocol.batch
    )
    logits = statistics['attributes'].logits
    return separability(spaces, logits, self.attributes.choose)
