"""The PyTorch worker: the networks of experiments/peer_speed on a GPU.

Eager or compiled, in channels_last, under autocast in bfloat16 where the case is, with
TF32 allowed and cudnn.benchmark.
"""

import argparse
import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / 'peer_speed'))
import torch
import torch_side
from worker import serve


class Side(torch_side.Side):
  def __init__(self, case: dict[str, Any], compiled: bool):
    self._narrow = case['dtype'] == 'bfloat16'
    self._device = 'cuda' if torch.cuda.is_available() else 'cpu'
    torch.set_default_device(self._device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    super().__init__(case, 'channels_last')
    start = time.perf_counter()
    if compiled:
      self._g.compile()
      self._d.compile()
      self._ema.compile()
    self.train(1)
    self.hello['compile_s'] = time.perf_counter() - start
    self.hello['side'] = f'PyTorch, {"compiled" if compiled else "eager"}'

  def _autocast(self) -> Any:
    if not self._narrow:
      return contextlib.nullcontext()
    return torch.autocast(self._device, torch.bfloat16)

  def _d_loss(self, real: torch.Tensor, draws: dict[str, Any]) -> torch.Tensor:
    with self._autocast():
      return super()._d_loss(real, draws)

  def _g_loss(self, draws: dict[str, Any]) -> torch.Tensor:
    with self._autocast():
      return super()._g_loss(draws)

  def train(self, n: int) -> None:
    super().train(n)
    self._wait()

  @torch.inference_mode()
  def images(self, batch: str, n: str) -> dict[str, float]:
    """Seconds of n times so many sampled images, as uint8 in memory."""
    b = int(batch)
    z, labels = torch.randn(b, self._nets['dim_z']), self._draw_labels(b)

    def draw() -> None:
      with self._autocast():
        if self._nets['family'] == 'biggan':
          image = self._ema(z, labels)
        elif self._nets['family'] == 'progan':
          image = self._ema(z)
        else:
          image = self._ema.draw(z, self._noise(b), psi=1.0)
      image = ((image + 1) * 127.5).round_().clamp_(0, 255).to(torch.uint8)
      image.permute(0, 2, 3, 1).contiguous().cpu().numpy()

    draw()
    self._wait()
    start = time.perf_counter()
    for _ in range(int(n)):
      draw()
    return {'wall': time.perf_counter() - start}

  def peak(self) -> dict[str, float]:
    """The largest memory in use on the device; 0 where it is not counted."""
    if self._device == 'cpu':
      return {'peak_gb': 0.0}
    return {'peak_gb': torch.cuda.max_memory_allocated() / 1e9}

  def _wait(self) -> None:
    if self._device == 'cuda':
      torch.cuda.synchronize()


def main() -> None:
  p = argparse.ArgumentParser(description=__doc__)
  p.add_argument('--case', type=json.loads, required=True)
  p.add_argument('--compiled', action='store_true')
  args = p.parse_args()
  torch.manual_seed(0)
  serve(Side(args.case, args.compiled))


if __name__ == '__main__':
  main()
