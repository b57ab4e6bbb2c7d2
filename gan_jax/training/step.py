"""One training iteration on one device: D updates, a G update and the EMA weights."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Int, PRNGKeyArray, PyTree

from gan_jax.models.augmentation import OFF, UNAUGMENTED, Augment, Augmentation
from gan_jax.models.base import (
  GAN,
  Batch,
  Loss,
  Metrics,
  Phase,
  Variables,
  example_keys,
)
from gan_jax.ops.platform import platform
from gan_jax.runtime.mesh import AXIS
from gan_jax.runtime.sharding import local_shard, shard_axis
from gan_jax.training.freezing import (
  NONE,
  Frozen,
  keep_ema,
  keep_spectral,
  trainable,
  with_frozen,
)
from gan_jax.training.noise_scale import estimate_noise_scale
from gan_jax.training.parameter_update import Gradients, apply_update, select
from gan_jax.training.train_state import TrainState

Tree = TypeVar('Tree')
MOST_UNROLLED = 8  # micro-batches without a loop on a CPU; more would compile too long
AUGMENT_KEY = 1000  # folded into the key of an update; families take the first few
# (params, g, d, micro-batch) -> (loss, (g, d, metrics))
LossFunction = Callable[[Variables, Variables, Variables, Any], Loss]


@dataclasses.dataclass(frozen=True)
class StepConfig:
  """What is fixed in a compiled training step."""

  gan: GAN
  g_tx: optax.GradientTransformation  # directions; the learning rate is Phase's
  d_tx: optax.GradientTransformation
  g_batch: int  # fake images of the G update, per device and micro-batch
  d_steps: int = 1  # D updates per iteration
  g_accum: int = 0  # micro-batches of the G update; 0: as many as those of a D update
  # Takes the gradient of G at the D before its update. Without it D is updated first.
  simultaneous: bool = False
  # 1, or the number of devices: then each device keeps and updates one shard of the
  # large arrays of g_opt, d_opt and ema, and gathers the updated parameters (ZeRO,
  # Rajbhandari et al. 2019, arXiv:1910.02054, stage 1).
  n_shards: int = 1
  # Adds the metrics of `estimate_noise_scale`. Costs one more pass over the gradients
  # of each device and micro-batch.
  noise_scale: bool = False
  matmul_precision: str = 'default'  # of float32; see `jax.default_matmul_precision`
  augmentation: Augmentation = OFF
  g_frozen: Frozen = NONE  # paths of parameters that keep their bits
  d_frozen: Frozen = NONE


@dataclasses.dataclass(frozen=True)
class Iteration:
  """What the updates of one iteration have in common, on one device."""

  config: StepConfig
  phase: Phase
  key: PRNGKeyArray  # of this iteration
  device: Int[Array, '']  # position of this device on the mesh axis
  n_devices: int
  d_accum: int  # micro-batches of a D update
  d_batch: int  # real images per device and micro-batch

  @property
  def g_accum(self) -> int:
    """Number of micro-batches of the G update."""
    return self.config.g_accum or self.d_accum

  def global_indices(self, micro_batch: Array, size: int) -> Int[Array, ' size']:
    """Global example indices of this device's images in a micro-batch."""
    return (micro_batch * self.n_devices + self.device) * size + jnp.arange(size)

  def run_loss(
    self, loss: Callable[[Variables, Variables], Loss], g: Variables, d: Variables
  ) -> Loss:
    """`loss` of G and D; it leaves what belongs to frozen weights as it was."""
    value, (new_g, new_d, metrics) = loss(g, d)
    new_g = keep_spectral(new_g, g, self.config.g_frozen)
    new_d = keep_spectral(new_d, d, self.config.d_frozen)
    return value, (new_g, new_d, metrics)

  def augment(
    self, key: PRNGKeyArray, index: Int[Array, ' b'], state: Variables
  ) -> Augment:
    """The augmentation of the examples of these global indices in one update."""
    if not self.config.augmentation.is_on:
      return UNAUGMENTED
    keys = example_keys(jax.random.fold_in(key, AUGMENT_KEY), index)
    return self.config.augmentation.augment(keys, state)

  def noise_scale_batches(self) -> dict[str, tuple[int, int]]:
    """Networks whose gradient noise scale is measured.

    The gradients of all devices and micro-batches are compared, so there must be two.
    The noise scale of G is undefined where devices share batch statistics: these
    correlate the gradients, which then cancel along a bias that they remove.

    Returns:
      Network -> (images of one gradient, number of gradients).
    """
    if not self.config.noise_scale:
      return {}
    found = {'d': (self.d_batch, self.n_devices * self.d_accum)}
    if self.n_devices == 1 or not self.config.gan.shares_batch_stats:
      found['g'] = self.config.g_batch, self.n_devices * self.g_accum
    return {network: sizes for network, sizes in found.items() if sizes[1] > 1}


def train_step(
  config: StepConfig, state: TrainState, batch: Batch, key: PRNGKeyArray, phase: Phase
) -> tuple[TrainState, Metrics]:
  """One iteration on one device of the mesh axis; runs under `shard_map` or `pmap`.

  Random inputs are drawn by *global* example index: on device j of n, micro-batch a of
  size b has the indices (a * n + j) * b + [0, b). So neither the number of devices nor
  that of micro-batches changes what is drawn. Batch statistics are those of a micro-
  batch, as in BigGAN-PyTorch.

  A non-finite loss or gradient skips the whole update and counts in the metric
  `skipped`, as in the optimizer of ProGAN and StyleGAN.

  Args:
    state: replicated, except the shards of g_opt, d_opt and ema.
    batch: images [d_steps * accum, b, h, w, c] and labels [d_steps * accum, b, ...].
    key: the key of the run; the number of the iteration is folded in here.

  Returns:
    The new state, and metrics averaged over the devices.
  """
  if config.matmul_precision == 'default':
    return _train_step(config, state, batch, key, phase)
  with jax.default_matmul_precision(config.matmul_precision):
    return _train_step(config, state, batch, key, phase)


def _train_step(
  config: StepConfig, state: TrainState, batch: Batch, key: PRNGKeyArray, phase: Phase
) -> tuple[TrainState, Metrics]:
  """`train_step` in the matmul precision of the config."""
  d_steps, (n, d_batch) = config.d_steps, batch.labels.shape[:2]
  device, n_devices = lax.axis_index(AXIS), lax.axis_size(AXIS)
  key = jax.random.fold_in(key, state.step)
  batch = jax.tree.map(lambda x: x.reshape(d_steps, n // d_steps, *x.shape[1:]), batch)
  it = Iteration(config, phase, key, device, n_devices, n // d_steps, d_batch)

  skipped, d_before, all_d_metrics = jnp.zeros(()), state.d, []
  for i in range(d_steps):  # unrolled: a loop hides work from the compiler's analysis
    state, d_metrics, is_finite = discriminator_update(it, state, batch, i)
    all_d_metrics.append(d_metrics)
    skipped += 1 - is_finite
  g_before = state.g
  labels = None
  if config.gan.n_classes and config.gan.fake_labels == 'data':
    state, labels = _data_labels(state, batch)
  d = d_before if config.simultaneous else state.d
  state, g_metrics, is_finite = generator_update(it, state, d, labels)
  skipped += 1 - is_finite

  # One all-reduce for the batch statistics of device groups and the metrics.
  stats = _batch_statistics(state.g)
  stats_before = _batch_statistics(g_before) if config.gan.ema_lags else {}
  metrics = {**_join_metrics(all_d_metrics), **g_metrics, 'skipped': skipped}
  stats, stats_before, metrics = lax.pmean((stats, stats_before, metrics), AXIS)
  metrics = _with_noise_scale(it, metrics)
  g, g_before = {**state.g, **stats}, {**g_before, **stats_before}
  ema = update_ema(config, state.ema, g_before, g, phase.ema)
  seen = n * n_devices * d_batch
  step, images = state.step + 1, state.images + jnp.uint32(seen)
  augment = state.augment
  if config.augmentation.is_on:
    metrics |= config.augmentation.metrics(augment)
    augment = config.augmentation.next_state(augment, metrics['d_sign'], seen, step)
  state = dataclasses.replace(
    state, step=step, images=images, g=g, ema=ema, augment=augment
  )
  return state, metrics


def discriminator_update(
  it: Iteration, state: TrainState, batch: Batch, i: int
) -> tuple[TrainState, Metrics, Bool[Array, '']]:
  """Update number `i` of D in this iteration.

  Args:
    batch: images [d_steps, accum, b, h, w, c] and labels [d_steps, accum, b].

  Returns:
    The new state, metrics, and whether the update was finite.
  """
  gan, phase = it.config.gan, it.phase
  # Without this barrier, XLA keeps a rounded copy of G's weights for all D updates,
  # which costs more than rounding them where they are read.
  g = {**state.g, 'params': lax.optimization_barrier(state.g['params'])}
  reals = jax.tree.map(lambda x: x[i], batch)
  key = jax.random.fold_in(it.key, i)

  def loss_fn(params: Variables, g: Variables, d: Variables, x: Any) -> Loss:
    real, micro_batch = x
    index = it.global_indices(micro_batch, it.d_batch)
    inputs = gan.draw_inputs(key, index, phase)
    augment = it.augment(key, index, state.augment)
    d = {**d, 'params': with_frozen(params, d['params'])}
    loss = lambda g, d: gan.d_loss(g, d, real, inputs, phase, augment)
    return it.run_loss(loss, g, d)

  frozen = it.config.d_frozen
  networks, params = (g, state.d), trainable(state.d['params'], frozen)
  gradients, new_networks, metrics = accumulate_gradients(
    loss_fn, networks, params, (reals, jnp.arange(it.d_accum)), _square_name(it, 'd')
  )
  tx, lr, n_shards = it.config.d_tx, phase.d_lr, it.config.n_shards
  params = state.d['params']
  update = apply_update(tx, state.d_opt, params, gradients, lr, n_shards, frozen)
  g, d = select(update.is_finite, new_networks, networks)
  d = {**d, 'params': update.params}
  state = dataclasses.replace(state, g=g, d=d, d_opt=update.opt_state)
  return state, {**metrics, 'd_grad': update.grad_norm}, update.is_finite


def _data_labels(
  state: TrainState, batch: Batch
) -> tuple[TrainState, Int[Array, ' images']]:
  """The labels of all real images of this iteration, by global index.

  They wait for the update of D, with which the state is returned: a collective of their
  own could be ordered differently on each process and deadlock.

  Args:
    batch: of this device: labels [d_steps, accum, b].
  """
  labels, d = lax.optimization_barrier((batch.labels, state.d))
  rows = labels.reshape(-1, *labels.shape[2:])
  labels = lax.all_gather(rows, AXIS, axis=1).reshape(-1, *rows.shape[2:])
  return dataclasses.replace(state, d=d), labels


def generator_update(
  it: Iteration,
  state: TrainState,
  d: Variables,
  labels: Int[Array, ' images'] | None = None,
) -> tuple[TrainState, Metrics, Bool[Array, '']]:
  """The update of G in this iteration; returns what `discriminator_update` returns.

  Args:
    d: variables of the D that scores the fakes.
    labels: of the fakes, in turn; None: those that the family draws.
  """
  gan, phase, g_batch = it.config.gan, it.phase, it.config.g_batch
  key = jax.random.fold_in(it.key, it.config.d_steps)

  def loss_fn(params: Variables, g: Variables, d: Variables, x: Any) -> Loss:
    index = it.global_indices(x, g_batch)
    inputs = gan.draw_inputs(key, index, phase)
    if labels is not None:
      inputs = inputs._replace(labels=labels[index % len(labels)])
    augment = it.augment(key, index, state.augment)
    g = {**g, 'params': with_frozen(params, g['params'])}
    loss = lambda g, d: gan.g_loss(g, d, inputs, phase, augment)
    return it.run_loss(loss, g, d)

  frozen = it.config.g_frozen
  networks, params = (state.g, d), trainable(state.g['params'], frozen)
  gradients, new_networks, metrics = accumulate_gradients(
    loss_fn, networks, params, jnp.arange(it.g_accum), _square_name(it, 'g')
  )
  tx, lr, n_shards = it.config.g_tx, phase.g_lr, it.config.n_shards
  params = state.g['params']
  update = apply_update(tx, state.g_opt, params, gradients, lr, n_shards, frozen)
  g, d = select(update.is_finite, new_networks, networks)
  g, d = {**g, 'params': update.params}, {**d, 'params': state.d['params']}
  state = dataclasses.replace(state, g=g, d=d, g_opt=update.opt_state)
  return state, {**metrics, 'g_grad': update.grad_norm}, update.is_finite


def accumulate_gradients(
  loss_fn: LossFunction,
  networks: tuple[Variables, Variables],
  params: Variables,
  micro_batches: PyTree[Array],
  square_name: str = '',
) -> tuple[Gradients, tuple[Variables, Variables], Metrics]:
  """Loss and gradients, averaged over micro-batches.

  Args:
    loss_fn: differentiated by its first argument, params.
    networks: variables of G and D.
    micro_batches: arrays [accum, ...]; `loss_fn` gets one slice.
    square_name: name of a metric to add, the mean over micro-batches of the squared
      norm of a micro-batch's gradient; '' for none.

  Returns:
    Means of loss, gradients and metrics, and the networks, whose non-parameter
    collections every micro-batch has updated in turn.
  """
  value_and_grad = jax.value_and_grad(loss_fn, has_aux=True)

  def body(carry: Any, micro_batch: Any) -> tuple[Any, Metrics]:
    (g, d), total = carry
    (loss, (g, d, metrics)), grads = value_and_grad(params, g, d, micro_batch)
    if square_name:
      metrics = {**metrics, square_name: optax.tree.norm(grads, squared=True)}
    new = Gradients(loss.astype(jnp.float32), grads)
    return ((g, d), jax.tree.map(jnp.add, total, new)), metrics

  zeros = Gradients(jnp.zeros((), jnp.float32), jax.tree.map(jnp.zeros_like, params))
  carry, accum = (networks, zeros), len(jax.tree.leaves(micro_batches)[0])
  if accum == 1:  # a loop of one would hide its cost from the compiler's analysis
    carry, metrics = body(carry, jax.tree.map(lambda x: x[0], micro_batches))
  else:
    # Within a loop XLA:CPU computes the gradients of convolutions 8 to 25 times slower.
    unroll = accum if platform() == 'cpu' and accum <= MOST_UNROLLED else 1
    carry, metrics = lax.scan(body, carry, micro_batches, unroll=unroll)
    metrics = jax.tree.map(lambda m: m.mean(0), metrics)
  networks, total = carry
  return jax.tree.map(lambda t: t / accum, total), networks, metrics


def _batch_statistics(g: Variables) -> Variables:
  """The collections that differ between groups of devices."""
  return {k: v for k, v in g.items() if k in ('batch_stats', 'moving')}


def update_ema(
  config: StepConfig,
  ema: Variables,
  g_before: Variables,
  g_after: Variables,
  decay: ArrayLike,
) -> Variables:
  """The next EMA weights, of which each device updates its shards.

  Args:
    ema: EMA of all collections of G; large arrays are shards.
    g_before: G before the update of this iteration; used if `gan.ema_lags`.
    g_after: G after it.
    decay: of the EMA, in [0, 1].
  """

  def shards(tree: Variables) -> Variables:
    axis = lambda x: shard_axis(x.shape, config.n_shards)
    return jax.tree.map(lambda x: local_shard(x, axis(x)), tree)

  if not config.gan.ema_lags:
    weights = shards(g_after)
    new = exponential_average(ema, weights, decay)
    kept = keep_ema(new['params'], ema['params'], weights['params'], config.g_frozen)
    return {**new, 'params': kept}
  weights = shards(g_before['params'])
  params = exponential_average(ema['params'], weights, decay)
  params = keep_ema(params, ema['params'], weights, config.g_frozen)
  copied = {k: v for k, v in g_before.items() if k != 'params'}
  return {**shards(copied), 'params': params}


def exponential_average(ema: Tree, x: Tree, decay: ArrayLike) -> Tree:
  """decay * ema + (1 - decay) * x, for all arrays of a tree."""

  def leaf(ema: Array, x: Array) -> Array:
    d = jnp.asarray(decay, ema.dtype)
    return d * ema + (1 - d) * x

  with jax.named_scope('ema_update'):
    return jax.tree.map(leaf, ema, x)


def _join_metrics(d_metrics: list[Metrics]) -> Metrics:
  """The metrics of the last D update; `d_sign` is the mean over all of them."""
  last = d_metrics[-1]
  if 'd_sign' not in last:
    return last
  signs = jnp.stack([metrics['d_sign'] for metrics in d_metrics])
  return last | {'d_sign': signs.mean()}


def _square_name(it: Iteration, network: str) -> str:
  """The metric from which the noise scale of a network is estimated; '' for none."""
  return f'{network}_square' if network in it.noise_scale_batches() else ''


def _with_noise_scale(it: Iteration, metrics: Metrics) -> Metrics:
  """Metrics with estimates of the gradient noise scale in place of squared norms."""
  for network, (size, n_gradients) in it.noise_scale_batches().items():
    small = metrics.pop(_square_name(it, network))
    large = jnp.square(metrics[f'{network}_grad'])
    total = size * n_gradients
    metrics |= estimate_noise_scale(network, small, large, size, total)
  return metrics
