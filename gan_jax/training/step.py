"""One training iteration: D steps, a G step and the moving average, compiled."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.typing import ArrayLike

from gan_jax.models.base import GAN, Batch, Metrics, Phase, Variables
from gan_jax.runtime.mesh import AXIS
from gan_jax.runtime.sharding import (
  ShardAxis,
  gather_shards,
  local_shard,
  mean_shard,
  replicate,
  shard_axis,
)
from gan_jax.training.noise_scale import estimate_noise_scale


class TrainStep(Protocol):
  """What `make_train_step` returns: to be called, or lowered from shapes first."""

  def __call__(
    self, state: 'TrainState', batch: Batch, key: Array, phase: Phase
  ) -> tuple['TrainState', Metrics]: ...

  def lower(self, *args: Any) -> Any: ...


@struct.dataclass
class TrainState:
  """All that is learned: arrays only, donated to each step, saved as one tree."""

  step: Array  # iterations done, int32
  images: Array  # reals shown to D, uint32: also the position in the data
  g: Variables
  d: Variables
  g_opt: optax.OptState
  d_opt: optax.OptState
  ema: Variables  # moving average of all of g


def init_state(
  gan: GAN,
  g_tx: optax.GradientTransformation,
  d_tx: optax.GradientTransformation,
  key: Array,
) -> TrainState:
  """The state before any training; the average starts as a copy of g."""
  g, d = gan.init(key)
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    images=jnp.zeros((), jnp.uint32),
    g=g,
    d=d,
    g_opt=g_tx.init(flatten_kernels(g['params'])),
    d_opt=d_tx.init(flatten_kernels(d['params'])),
    ema=jax.tree.map(jnp.copy, g),
  )


def flatten_kernels(params: Variables) -> Variables:
  """Parameters as optimizers see them: kernels [h, w, c, o] as [h * w * c, o].

  Parts of many rows lie in memory as the whole does, so that gathering moves nothing.
  """
  return jax.tree.map(_flatten_kernel, params)


def _flatten_kernel(x: Any) -> Any:
  return x.reshape(-1, x.shape[-1]) if x.ndim > 2 else x


_CUT = 'g_opt', 'd_opt', 'ema'


def train_step(
  gan: GAN,
  g_tx: optax.GradientTransformation,
  d_tx: optax.GradientTransformation,
  d_steps: int,
  g_batch: int,
  parts: int,
  state: TrainState,
  batch: Batch,
  key: Array,
  phase: Phase,
  noise_scale: bool = False,
) -> tuple[TrainState, Metrics]:
  """One iteration on one device of the mesh axis.

  Noise is drawn for slots of the *global* batch: device j of n sees, in its micro-
  batch a of size b, the slots (a * n + j) * b + [0, b). So neither the number of
  devices nor of micro-batches changes what is drawn. Batch statistics are those of
  a micro-batch, though, as in BigGAN-PyTorch.

  An update of which the loss or the gradient's norm is not finite is skipped whole and
  counted in the metric `skipped`, as in the optimizer of ProGAN and StyleGAN.

  Args:
    batch: images [d_steps * accum, b, h, w, c] and labels [d_steps * accum, b].
    g_batch: fakes per device and micro-batch in the G step.
    parts: 1, or the number of devices: then each of them has its own part of large
      arrays in `g_opt`, `d_opt` and `ema` (`cut_axis`), moves that part of the
      parameters, and all gather them (ZeRO, Rajbhandari et al. 2019,
      arXiv:1910.02054, stage 1).
    key: the run's key; the step number is folded in here.
    noise_scale: give the metrics of `noise.estimates`, which is one pass more over the
      gradients of each device and micro-batch; of one of each there are none, and of G
      none where devices share batch statistics.
  """
  devices, me = lax.axis_size(AXIS), lax.axis_index(AXIS)
  key = jax.random.fold_in(key, state.step)
  accum, b = batch.labels.shape[0] // d_steps, batch.labels.shape[1]
  micro = jax.tree.map(lambda x: x.reshape(d_steps, accum, *x.shape[1:]), batch)
  compared = {}  # network -> images of a part
  if noise_scale and devices * accum > 1:
    # Statistics make the gradients of those who share them lean against each other: all
    # cancel, and none vanishes, along a bias that they take away. Not G's own noise.
    shared = devices > 1 and gan.shares_batch_stats
    compared = {'d': b} if shared else {'d': b, 'g': g_batch}

  def slots(a: Array, size: int) -> Array:
    return (a * devices + me) * size + jnp.arange(size)

  def accumulated(net, loss_and_grad, g, d, params, inputs):
    """Mean loss and gradient over the micro-batches, while the collections move on."""

    def body(carry, x):
      g, d, total = carry
      (loss, (g, d, metrics)), grads = loss_and_grad(g, d, params, x)
      if net in compared:
        metrics = {**metrics, f'{net}_square': optax.tree.norm(grads, squared=True)}
      found = loss.astype(jnp.float32), grads
      return (g, d, jax.tree.map(jnp.add, total, found)), metrics

    zeros = jnp.zeros((), jnp.float32), jax.tree.map(jnp.zeros_like, params)
    if accum == 1:  # a loop of one would hide its cost from the compiler's analysis
      (g, d, total), metrics = body((g, d, zeros), jax.tree.map(lambda x: x[0], inputs))
    else:
      (g, d, total), metrics = lax.scan(body, (g, d, zeros), inputs)
      metrics = jax.tree.map(lambda m: m.mean(0), metrics)
    return g, d, jax.tree.map(lambda t: t / accum, total), metrics

  def updated(tx, opt, params, found, lr):
    """Parameters and opt one update on, the gradient's norm, and if it is sound.

    What is not finite does not happen at all.
    """
    loss, grads = found
    # Told to the other devices with the gradients: a collective of its own could meet
    # those of the backward pass in another order on each process, and wait for ever.
    (one, *rest), tree = jax.tree.flatten(grads)
    one += jnp.where(jnp.isfinite(loss), 0, jnp.nan).astype(one.dtype)
    grads = [_flatten_kernel(g) for g in (one, *rest)]
    whole = jax.tree.leaves(params)
    cuts = [shard_axis(g.shape, parts) for g in grads]
    with jax.named_scope('optimizer'):
      grads = [mean_shard(g, axis) for g, axis in zip(grads, cuts, strict=True)]
      norm = _norm(grads, cuts)
      mine = [
        local_shard(_flatten_kernel(p), axis)
        for p, axis in zip(whole, cuts, strict=True)
      ]
      unflatten = partial(jax.tree.unflatten, tree)
      direction, after = optax.with_extra_args_support(tx).update(
        unflatten(grads),
        opt,
        unflatten(mine),
        cuts=unflatten([ShardAxis(axis) for axis in cuts]),
      )
      finite = jnp.isfinite(norm)
      moved = [
        jnp.where(finite, p - jnp.asarray(lr, p.dtype) * u, p)
        for p, u in zip(mine, jax.tree.leaves(direction), strict=True)
      ]
      # The barrier keeps the compiler from rounding matrices instead of what is read.
      moved = lax.optimization_barrier(
        [
          gather_shards(p, axis).reshape(old.shape)
          for p, axis, old in zip(moved, cuts, whole, strict=True)
        ]
      )
      return unflatten(moved), unless_broken(finite, after, opt), norm, finite

  def unless_broken(finite, after, before):
    return jax.tree.map(lambda x, y: jnp.where(finite, x, y), after, before)

  def d_grad(step_key, g, d, params, x):
    real, a = x
    draws = gan.draw_inputs(step_key, slots(a, b), phase)

    def loss(p):
      return gan.d_loss(g, {**d, 'params': p}, real, draws, phase)

    return jax.value_and_grad(loss, has_aux=True)(params)

  def g_grad(step_key, g, d, params, a):
    draws = gan.draw_inputs(step_key, slots(a, g_batch), phase)

    def loss(p):
      return gan.g_loss({**g, 'params': p}, d, draws, phase)

    return jax.value_and_grad(loss, has_aux=True)(params)

  g, d, g_opt, d_opt = state.g, state.d, state.g_opt, state.d_opt
  rounds, skipped = jnp.arange(accum), jnp.zeros(())
  for i in range(d_steps):  # unrolled: a loop hides work from cost analysis
    # Else the compiler keeps a rounded copy of all of g's weights from step to step,
    # which costs more than to round them where they are read.
    g = {**g, 'params': lax.optimization_barrier(g['params'])}
    reals = jax.tree.map(lambda x, i=i: x[i], micro)
    fn = partial(d_grad, jax.random.fold_in(key, i))
    old, trained = (g, d), d['params']
    g, d, found, d_metrics = accumulated('d', fn, g, d, trained, (reals, rounds))
    params, d_opt, d_norm, finite = updated(d_tx, d_opt, trained, found, phase.d_lr)
    g, d = unless_broken(finite, (g, d), old)  # collections stay as well
    d = {**d, 'params': params}
    skipped += 1 - finite

  before = g  # what an average that lags follows: the weights the D step has seen
  fn = partial(g_grad, jax.random.fold_in(key, d_steps))
  old, trained = (g, d), g['params']
  g, d, found, g_metrics = accumulated('g', fn, g, d, trained, rounds)
  params, g_opt, g_norm, finite = updated(g_tx, g_opt, trained, found, phase.g_lr)
  g, d = unless_broken(finite, (g, d), old)
  g = {**g, 'params': params}
  skipped += 1 - finite

  # Statistics of groups of devices, and metrics, become the mesh's in one all-reduce.
  stats = {k: v for k, v in g.items() if k in ('batch_stats', 'moving')}
  lagging = {k: before[k] for k in stats} if gan.ema_lags else {}
  metrics = {**d_metrics, **g_metrics}
  metrics |= {'d_grad': d_norm, 'g_grad': g_norm, 'skipped': skipped}
  stats, lagging, metrics = lax.pmean((stats, lagging, metrics), AXIS)
  g = {**g, **stats}
  for net, size in compared.items():
    small, big = metrics.pop(f'{net}_square'), jnp.square(metrics[f'{net}_grad'])
    metrics |= estimate_noise_scale(net, small, big, size, size * devices * accum)

  def own(tree):
    return jax.tree.map(lambda x: local_shard(x, shard_axis(x.shape, parts)), tree)

  if gan.ema_lags:  # and what is not a parameter is copied
    params = ema_update(state.ema['params'], own(before['params']), phase.ema)
    ema = {**own(before), **lagging, 'params': params}
  else:
    ema = ema_update(state.ema, own(g), phase.ema)

  state = TrainState(
    step=state.step + 1,
    images=state.images + jnp.uint32(d_steps * accum * devices * b),
    g=g,
    d=d,
    g_opt=g_opt,
    d_opt=d_opt,
    ema=ema,
  )
  return state, metrics


def _norm(grads: list[Array], cuts: list[int | None]) -> Array:
  """The length of all gradients, of which some are only here in part."""
  squares = [jnp.square(g).sum() for g in grads]
  here = [s for s, c in zip(squares, cuts, strict=True) if c is None]
  total = sum(here, jnp.zeros(()))
  if len(here) < len(squares):
    parts = [s for s, c in zip(squares, cuts, strict=True) if c is not None]
    total += lax.psum(sum(parts[1:], parts[0]), AXIS)
  return jnp.sqrt(total)


def ema_update(ema: Variables, x: Variables, decay: ArrayLike) -> Variables:
  """One step of an exponential moving average."""

  def leaf(e, x):
    d = jnp.asarray(decay, e.dtype)
    return d * e + (1 - d) * x

  with jax.named_scope('average'):
    return jax.tree.map(leaf, ema, x)


def make_reset(
  g_tx: optax.GradientTransformation, d_tx: optax.GradientTransformation, mesh: Mesh
) -> Callable[[TrainState], TrainState]:
  """Compiles state (donated) -> the state with optimizers as at their start.

  A growing GAN needs it where a fade begins and ends (`schedule.resets_between`).
  """

  def reset(state):
    return state.replace(
      g_opt=g_tx.init(flatten_kernels(state.g['params'])),
      d_opt=d_tx.init(flatten_kernels(state.d['params'])),
    )

  return jax.jit(reset, donate_argnums=0, out_shardings=NamedSharding(mesh, P()))


def state_shardings(state: TrainState, mesh: Mesh, mapped: str) -> TrainState:
  """The sharding of every array of the state (or of its shapes) on the mesh.

  Replicated; but under 'jit' large arrays of the optimizers and of the average, which
  no network reads, are cut (`cut_axis`).
  """
  everywhere = NamedSharding(mesh, P())
  parts = mesh.size if mapped == 'jit' else 1

  def cut(x: Any) -> NamedSharding:
    axis = shard_axis(x.shape, parts)
    return everywhere if axis is None else NamedSharding(mesh, P(*[None] * axis, AXIS))

  placed = jax.tree.map(lambda _: everywhere, state)
  cuts = {name: jax.tree.map(cut, getattr(state, name)) for name in _CUT}
  return dataclasses.replace(placed, **cuts)


class _ShardedStep:
  """A Step under jit; a state that comes in replicated is cut on the way in."""

  def __init__(self, run: Any, mesh: Mesh):
    self._run, self._mesh = run, mesh
    self._wanted: dict[str, Any] = {}  # shardings of what is cut, which stay

  def __call__(
    self, state: TrainState, batch: Batch, key: Array, phase: Phase
  ) -> tuple[TrainState, Metrics]:
    return self._run(self._placed(state), batch, key, phase)

  def lower(self, state: TrainState, *args: Any) -> Any:
    shape = lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s)
    where = state_shardings(state, self._mesh, 'jit')
    return self._run.lower(jax.tree.map(shape, state, where), *args)

  def _cache_size(self) -> int:
    return self._run._cache_size()

  def _placed(self, state: TrainState) -> TrainState:
    if not self._wanted:
      where = state_shardings(state, self._mesh, 'jit')
      self._wanted = {name: getattr(where, name) for name in _CUT}
    mine = {name: getattr(state, name) for name in _CUT}
    pairs = zip(jax.tree.leaves(mine), jax.tree.leaves(self._wanted), strict=True)
    if all(x.sharding.is_equivalent_to(s, x.ndim) for x, s in pairs):
      return state
    placed = jax.jit(lambda x: x, out_shardings=self._wanted)(mine)
    return dataclasses.replace(state, **placed)


def make_train_step(
  gan: GAN,
  g_tx: optax.GradientTransformation,
  d_tx: optax.GradientTransformation,
  mesh: Mesh,
  *,
  d_steps: int = 1,
  g_batch: int,
  mapped: str = 'pmap',
  noise_scale: bool = False,
) -> TrainStep:
  """Compiles `train_step` for every device of the mesh, by `jax.pmap` or `jax.jit`.

  Both mappings take the same arrays: a replicated state (donated), a batch with the
  device axis in front, [n_devices, d_steps * accum, b, ...], sharded over it, a key
  and a Phase; both return the state and scalar metrics. One resolution is one compile.

  Under pmap the state stays replicated. Under jit each device keeps and updates its
  part of large arrays of the optimizers and of the average only (`gathered` gives
  them whole); where nothing is as large as that, both give the same bits.
  """
  n = mesh.size
  fixed = gan, g_tx, d_tx, d_steps, g_batch
  per_device = partial(train_step, *fixed, noise_scale=noise_scale)

  if mapped == 'pmap':
    mapped_step = jax.pmap(
      partial(per_device, 1),
      AXIS,
      in_axes=(None, 0, None, None),
      out_axes=None,
      axis_size=n,
      devices=tuple(mesh.devices.flat),
      donate_argnums=0,
    )
    if jax.process_count() == 1:
      return mapped_step
    # With several processes pmap hands back host-local arrays, and lowers only from
    # values; the state stays global.
    relay: Any = lambda *args: replicate(mapped_step(*args), mesh)
    zeros = lambda state: jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), state)
    relay.lower = lambda state, *args: mapped_step.lower(zeros(state), *args)
    return relay

  def block(state, batch, key, phase):
    return per_device(n, state, jax.tree.map(lambda x: x[0], batch), key, phase)

  def step(state, batch, key, phase):
    specs = jax.tree.map(lambda s: s.spec, state_shardings(state, mesh, mapped))
    sharded = jax.shard_map(
      block,
      mesh=mesh,
      in_specs=(specs, P(AXIS), P(), P()),
      out_specs=(specs, P()),
      check_vma=False,
    )
    return sharded(state, batch, key, phase)

  return _ShardedStep(jax.jit(step, donate_argnums=0), mesh)


def shard_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> Batch:
  """This host's part of a batch, [local devices, ...], as global sharded arrays."""
  sharding = NamedSharding(mesh, P(AXIS))
  mine = [d for d in mesh.devices.flat if d.process_index == jax.process_index()]

  def place(x):
    parts = [jax.device_put(x[i : i + 1], d) for i, d in enumerate(mine)]
    shape = (mesh.size, *x.shape[1:])
    return jax.make_array_from_single_device_arrays(shape, sharding, parts)

  return Batch(place(batch['images']), place(batch['labels']))
