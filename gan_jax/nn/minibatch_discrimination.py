"""Minibatch discrimination (Salimans et al. 2016, arXiv:1606.03498, section 3.2)."""

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from gan_jax.ops.reductions import accumulation_dtype
from gan_jax.runtime.mesh import AXIS


class MinibatchDiscrimination(nn.Module):
  """Appends to the features of an example how close it is to the rest of the batch.

  Each kernel projects the features to `dim` numbers. Its output is the sum of
  exp(-distance) over all other examples of the global batch, plus a bias, with the L1
  distance between the projections. Projections have unit length times exp(log_scale),
  as in the code of the paper. Runs under the mesh axis, but for initialization.
  """

  kernels: int
  dim: int = 5  # numbers per kernel

  @nn.compact
  def __call__(self, x: Float[Array, 'b c']) -> Float[Array, 'b c+kernels']:
    shape = (x.shape[-1], self.kernels, self.dim)
    theta = self.param('theta', nn.initializers.normal(0.05), shape)
    log_scale = self.param('log_scale', nn.initializers.zeros, shape[1:])
    bias = self.param('bias', nn.initializers.constant(-1.0), (1, self.kernels))
    dtype = accumulation_dtype(x.dtype)
    length = jnp.sqrt(jnp.square(theta).sum(0, keepdims=True))
    weight = theta * jnp.exp(log_scale)[None] / length
    ours = jnp.einsum('bc,ckd->bkd', x.astype(dtype), weight.astype(dtype))
    everyone, rows = ours, jnp.arange(len(x))
    if not self.is_initializing():
      everyone = lax.all_gather(ours, AXIS, tiled=True)
      rows += lax.axis_index(AXIS) * len(x)
    distance = jnp.abs(ours[:, None] - everyone[None]).sum(-1)
    columns = jnp.arange(len(everyone))
    other = rows[:, None] != columns[None]
    closeness = jnp.where(other[..., None], jnp.exp(-distance), 0).sum(1)
    return jnp.concatenate([x, (closeness + bias).astype(x.dtype)], -1)
