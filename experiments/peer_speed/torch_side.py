"""The worker of plain PyTorch: eager, on the CPU. See worker.py."""

import argparse
import functools
import json
import os

import numpy as np
import torch
import torch.nn.functional as F
from cases import SAMPLES
from torch import Tensor
from torch_nets import build
from worker import PRODUCT, serve

FORMATS = {
  'contiguous': torch.contiguous_format,
  'channels_last': torch.channels_last,
}


class Side:
  def __init__(self, case: dict, memory_format: str):
    self._nets, self._config, self._b = case['nets'], case['config'], case['batch']
    self._format = FORMATS[memory_format]
    self._g, self._d, self._ema = (
      net.to(memory_format=self._format) for net in build(self._nets)
    )
    adam = lambda net, name: torch.optim.Adam(
      net.parameters(),
      lr=np.ravel(self._config['schedule'][f'{name}_lr'])[0],
      betas=(0.0, self._config[f'{name}_adam']['beta2']),
      eps=self._config[f'{name}_adam']['eps'],
      fused=True,
    )
    self._g_adam, self._d_adam = adam(self._g, 'g'), adam(self._d, 'd')
    self._decay = self._config['schedule'].get('ema', 0.999)
    res = self._nets['res']
    images = torch.randint(0, 256, (self._b, 3, res, res), dtype=torch.uint8)
    self._images = images.to(memory_format=self._format)
    self._labels = self._draw_labels(self._b)
    self.hello = {
      'side': f'PyTorch, {memory_format}',
      'version': f'torch {torch.__version__.partition("+")[0]}',
      'compile_s': 0.0,
      'g_params': sum(p.numel() for p in self._g.parameters()),
      'd_params': sum(p.numel() for p in self._d.parameters()),
    }

  # What is random.

  def _draw_labels(self, n: int) -> Tensor:
    return torch.randint(max(self._nets.get('n_classes', 0), 1), (n,))

  def _noise(self, n: int) -> list[Tensor]:
    sizes = [4 << i // 2 for i in range(self._g.layers)]
    return [torch.randn(n, 1, size, size) for size in sizes]

  def _draw(self) -> dict:
    b, z = self._b, torch.randn(self._b, self._nets['dim_z'])
    family = self._nets['family']
    if family == 'biggan':
      return {'z': z, 'labels': self._draw_labels(b)}
    if family == 'progan':
      return {'z': z, 'interpolation': torch.rand(b)}
    n = self._g.layers
    cutoff = int(torch.randint(1, n, ())) if torch.rand(()) < 0.9 else n
    return {
      'z': z,
      'z2': torch.randn_like(z),
      'cutoff': cutoff,
      'noise': self._noise(b),
    }

  # One iteration.

  def _fake(self, draws: dict) -> Tensor:
    inputs = {k: x for k, x in draws.items() if k != 'interpolation'}
    return self._g(**inputs)

  def _d_loss(self, real: Tensor, draws: dict) -> Tensor:
    family = self._nets['family']
    with torch.no_grad():
      fake = self._fake(draws)
    if family == 'biggan':
      labels = torch.cat([draws['labels'], self._labels])
      of_fake, of_real = self._d(torch.cat([fake, real]), labels).split(self._b)
      return F.relu(1 - of_real).mean() + F.relu(1 + of_fake).mean()
    if family == 'stylegan':
      real.requires_grad_()
      of_real, of_fake = self._d(real), self._d(fake)
      loss = F.softplus(-of_real).mean() + F.softplus(of_fake).mean()
      (slope,) = torch.autograd.grad(of_real.sum(), real, create_graph=True)
      return loss + 10 / 2 * slope.square().sum((1, 2, 3)).mean()
    of_real, of_fake = self._d(real), self._d(fake)
    mixed = torch.lerp(
      real, fake, draws['interpolation'][:, None, None, None]
    ).requires_grad_()
    (slope,) = torch.autograd.grad(self._d(mixed).sum(), mixed, create_graph=True)
    penalty = (slope.square().sum((1, 2, 3)).sqrt() - 1).square().mean()
    drift = of_real.square().mean()
    return of_fake.mean() - of_real.mean() + 10 * penalty + 1e-3 * drift

  def _g_loss(self, draws: dict) -> Tensor:
    fake = self._fake(draws)
    if self._nets['family'] == 'biggan':
      return -self._d(fake, draws['labels']).mean()
    score = self._d(fake)
    if self._nets['family'] == 'stylegan':
      return F.softplus(-score).mean()
    return -score.mean()

  def _iteration(self, of_d: dict, of_g: dict, norms: bool = False) -> dict[str, float]:
    self._d.requires_grad_(True)
    real = self._images.float() / 127.5 - 1
    self._d_adam.zero_grad()
    d_loss = self._d_loss(real, of_d)
    d_loss.backward(inputs=list(self._d.parameters()))
    found = {'d_grad': length(self._d)} if norms else {}
    self._d_adam.step()

    self._d.requires_grad_(False)
    self._g_adam.zero_grad()
    g_loss = self._g_loss(of_g)
    g_loss.backward()
    found |= {'g_grad': length(self._g)} if norms else {}
    if self._nets['ortho']:
      self._add_orthogonal_term()
    self._g_adam.step()
    average, moved = self._average
    torch._foreach_lerp_(average, moved, 1 - self._decay)
    return {'d_loss': d_loss.item(), 'g_loss': g_loss.item(), **found}

  @functools.cached_property
  def _average(self) -> tuple[list[Tensor], list[Tensor]]:
    pick = lambda net: [*(p.detach() for p in net.parameters()), *net.buffers()]
    return pick(self._ema), pick(self._g)

  @torch.no_grad()
  def _add_orthogonal_term(self) -> None:
    """As BigGAN-PyTorch's utils.ortho: of every weight but the shared embedding."""
    for name, p in self._g.named_parameters():
      if p.ndim < 2 or name.startswith('shared'):
        continue
      w = p.flatten(1)
      gram = w @ w.t()
      gram.fill_diagonal_(0)
      p.grad.add_((gram @ w).view(p.shape), alpha=2 * self._nets['ortho'])

  # The commands.

  def train(self, n: int) -> dict[str, float]:
    found = {}
    for _ in range(n):
      found = self._iteration(self._draw(), self._draw())
    return found

  @torch.inference_mode()
  def sample(self, n: int) -> None:
    z, labels = self._seeds
    for _ in range(n):
      if self._nets['family'] == 'biggan':
        image = self._ema(z, labels)
      elif self._nets['family'] == 'progan':
        image = self._ema(z)
      else:
        image = self._ema.draw(z, self._noise(SAMPLES), psi=1.0)
      image = ((image + 1) * 127.5).round_().clamp_(0, 255).to(torch.uint8)
      np.ascontiguousarray(image.permute(0, 2, 3, 1).numpy())

  @functools.cached_property
  def _seeds(self) -> tuple[Tensor, Tensor]:
    return torch.randn(SAMPLES, self._nets['dim_z']), self._draw_labels(SAMPLES)

  def matmul(self) -> None:
    torch.mm(self._product, self._product)

  @functools.cached_property
  def _product(self) -> Tensor:
    return torch.ones(PRODUCT, PRODUCT)

  def check(self, path: str) -> dict[str, float]:
    """One iteration from given weights, images and noise."""
    with np.load(path) as file:
      lent = {name: torch.from_numpy(np.atleast_1d(x)) for name, x in file.items()}
    used = set()
    for prefix, net in (('g', self._g), ('d', self._d)):
      used |= borrow(net, prefix, lent)
    missing = {n for n in lent if n[:9] in ('g.params.', 'd.params.')} - used
    assert not missing, missing
    self._images.copy_(lent['batch.images'].permute(0, 3, 1, 2))
    self._labels = lent['batch.labels'].long()
    return self._iteration(*(self._lent_draws(lent, i) for i in range(2)), norms=True)

  def _lent_draws(self, lent: dict[str, Tensor], i: int) -> dict:
    draws = {k: lent[f'draws.{i}.{k}'] for k in self._draw() if k != 'noise'}
    if 'labels' in draws:
      draws['labels'] = draws['labels'].long()
    if 'cutoff' in draws:
      layers = range(self._g.layers)
      noise = [lent[f'draws.{i}.noise.{j}'].permute(0, 3, 1, 2) for j in layers]
      draws |= {'cutoff': int(draws['cutoff']), 'noise': noise}
    return draws


def length(net: torch.nn.Module) -> float:
  found = [p.grad.norm() for p in net.parameters() if p.grad is not None]
  return torch.stack(found).norm().item()


@torch.no_grad()
def borrow(net: torch.nn.Module, prefix: str, lent: dict[str, Tensor]) -> set[str]:
  """Takes over gan_jax's parameters and vectors of the power iteration."""
  used = set()
  for name, p in net.named_parameters():
    layer, _, leaf = name.rpartition('.')
    stem = f'{prefix}.params.{layer}.' if layer else f'{prefix}.params.'
    names = ('kernel', 'embedding') if leaf == 'weight' else (leaf,)
    (found,) = (stem + n for n in names if stem + n in lent)
    x = lent[found]
    if x.ndim == 4:
      x = x.permute(3, 2, 0, 1) if leaf == 'weight' else x.permute(0, 3, 1, 2)
    elif found.endswith('kernel'):
      x = x.t()
    p.copy_(x.reshape(p.shape))
    used.add(found)
  for name, u in net.named_buffers():
    if name.endswith('.u'):
      u.copy_(lent[f'{prefix}.spectral.{name}'][0])
  return used


def main() -> None:
  p = argparse.ArgumentParser(description=__doc__)
  p.add_argument('--case', type=json.loads, required=True)
  p.add_argument('--format', choices=list(FORMATS), default='contiguous')
  args = p.parse_args()
  torch.set_num_threads(len(os.sched_getaffinity(0)))
  torch.manual_seed(0)
  serve(Side(args.case, args.format))


if __name__ == '__main__':
  main()
