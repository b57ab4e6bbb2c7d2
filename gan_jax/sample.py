"""Pictures from a trained generator: python -m gan_jax.sample --workdir=DIR ..."""

import argparse
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax import Array
from jax.typing import ArrayLike

from gan_jax import UserError, checkpoint, command, export, sheets, workdir
from gan_jax.biggan import BigGAN
from gan_jax.gan import GAN, Phase, Variables
from gan_jax.sampler import (
  class_of_seed,
  in_batches,
  latents,
  make_sampler,
  make_synthesizer,
  standing_statistics,
)
from gan_jax.step import make_mesh
from gan_jax.stylegan import StyleGAN


def parse_numbers(text: str, what: str) -> list[int]:
  """'0-3,8' -> [0, 1, 2, 3, 8].

  Raises:
    UserError: anything else.
  """
  numbers: list[int] = []
  for part in text.split(','):
    first, _, last = part.partition('-')
    if not first.isdigit() or (last and not last.isdigit()):
      raise UserError(f'--{what}={text}: give numbers such as 0-63 or 1,5,9-12.')
    numbers += range(int(first), int(last or first) + 1)
  return numbers


class Plan(NamedTuple):
  """What the arguments ask for, a row for each picture."""

  z: np.ndarray  # [n, dim_z]
  classes: np.ndarray  # weights [n, n_classes]
  seeds: np.ndarray  # uint32 [n]
  columns: int  # of a sheet


def plan_pictures(args: argparse.Namespace, gan: GAN, text: str) -> Plan:
  """The pictures of the seeds in `text`, or those between them.

  Raises:
    UserError: classes that the model does not have, too few seeds.
  """
  if args.num:
    seeds = list(range(args.num))
  else:
    seeds = parse_numbers(text, 'seeds')
  asked = parse_numbers(args.classes, 'classes') if args.classes else []
  if asked and not gan.n_classes:
    raise UserError('--classes: this model knows no classes.')
  if asked and max(asked) >= gan.n_classes:
    raise UserError(f'--classes={args.classes}: classes are 0-{gan.n_classes - 1}.')
  if args.grid and not gan.n_classes:
    raise UserError('--grid: this model knows no classes.')
  one_hot = np.eye(max(gan.n_classes, 1), dtype=np.float32)
  drawn = np.array(seeds, np.uint32)
  z = np.asarray(latents(drawn, gan.dim_z, args.truncation))
  if args.grid:
    rows = asked or list(range(gan.n_classes))
    tiled, columns = np.tile(drawn, len(rows)), len(seeds)
    return Plan(
      np.tile(z, (len(rows), 1)), one_hot[np.repeat(rows, columns)], tiled, columns
    )
  if asked:
    classes = one_hot[np.resize(asked, len(seeds))]
  else:
    classes = one_hot[np.asarray(class_of_seed(drawn, gan.n_classes))]
  if not args.interpolate:
    return Plan(z, classes, drawn, args.columns)
  if len(z) < 2:
    raise UserError('--interpolate needs at least two seeds.')
  # One noise for all, so that nothing but the asked for changes.
  noise = np.repeat(drawn[:1], (len(z) - 1) * args.frames)
  if args.interpolate == 'w':  # whose ends `plan_styles` takes
    return Plan(z, classes, noise, args.frames)
  classes = between(classes, args.frames)
  if args.interpolate == 'z':
    z = between(z, args.frames)
  else:
    z = np.repeat(z[:1], len(classes), 0)
  return Plan(z, classes, noise, args.frames)


def between(x: np.ndarray, frames: int) -> np.ndarray:
  """[n, ...] -> [(n - 1) * frames, ...]: straight lines from each to the next."""
  t = np.linspace(0, 1, frames, dtype=np.float32)
  t = t.reshape(-1, *[1] * (x.ndim - 1))
  pairs = zip(x[:-1], x[1:], strict=True)
  return np.concatenate([(1 - t) * a + t * b for a, b in pairs])


def style_ranges(gan: StyleGAN) -> dict[str, range]:
  """Layers of the coarse, middle and fine styles.

  The paper's (section 3.1) are 4-8, 16-32 and 64-1024 pixels; of fewer resolutions
  the same share, and at least one each.
  """
  sizes = gan.layers(gan.res) // 2
  step = max(1, round(sizes * 2 / 9))
  ends = [0, 2 * step, 4 * step, 2 * sizes]
  names = ('coarse', 'middle', 'fine')
  return {name: range(ends[i], ends[i + 1]) for i, name in enumerate(names)}


def mixed_styles(
  rows: np.ndarray, columns: np.ndarray, layers: Sequence[range]
) -> np.ndarray:
  """Each row's styles with those of each column's in some layers (paper, figure 3).

  Args:
    rows: [r, layers, dim_w]; columns [c, layers, dim_w].
    layers: one range for each band of the sheet.

  Returns:
    [len(layers) * r * c, layers, dim_w], band by band and row by row.
  """
  mixed = np.repeat(rows[:, None], len(columns), 1)
  bands = []
  for band in layers:
    taken = mixed.copy()
    taken[:, :, list(band)] = columns[None][:, :, list(band)]
    bands.append(taken)
  return np.stack(bands).reshape(-1, *rows.shape[1:])


def parser() -> argparse.ArgumentParser:
  p = argparse.ArgumentParser(
    prog='python -m gan_jax.sample',
    description='Draws pictures with the averaged generator of a run.',
  )
  p.add_argument('--workdir', required=True, help='folder of the run')
  p.add_argument(
    '--export',
    metavar='GEN.stablehlo',
    help='instead of pictures: the generator as a program that needs jax alone, and '
    'its weights as GEN.safetensors',
  )
  p.add_argument(
    '--out',
    help='sheet.png, images.npz, morph.webp (.gif, .mp4), or a folder for PNGs',
  )
  p.add_argument('--checkpoint', type=int, help='step to load; default: the newest')
  p.add_argument('--seeds', default='0-63', help='one picture each: 0-63 or 1,5,9-12')
  p.add_argument('--num', type=int, default=0, help='instead: seeds 0 to NUM-1')
  p.add_argument('--classes', default='', help='0-8 or 3,5; taken in turn')
  p.add_argument(
    '--grid', action='store_true', help='a row for each class, a column for each seed'
  )
  p.add_argument(
    '--truncation',
    type=float,
    default=np.inf,
    metavar='T',
    help='draw entries of z beyond +-T again (BigGAN; smaller: better, less varied)',
  )
  p.add_argument(
    '--psi',
    type=float,
    default=1.0,
    help='BigGAN: scale z, a normal cut at 2 unless --truncation says otherwise; '
    'StyleGAN: draw w towards its average (smaller: better, less varied)',
  )
  p.add_argument(
    '--truncated_layers',
    type=int,
    metavar='N',
    help='StyleGAN: psi acts on the first N layers; default: 8, as in the paper',
  )
  p.add_argument(
    '--noise',
    choices=('own', 'stored', 'off'),
    default='own',
    help="StyleGAN: each seed's own noise, the one that came with the weights, or none",
  )
  p.add_argument(
    '--noise_seed', type=int, metavar='N', help='StyleGAN: all with the noise of seed N'
  )
  p.add_argument(
    '--mix',
    default='',
    metavar='SEEDS',
    help='StyleGAN: a sheet of --seeds (rows) with styles of these (columns)',
  )
  p.add_argument(
    '--mix_layers',
    default='coarse,middle,fine',
    help='what is taken from the columns: these names, or layers such as 0-3',
  )
  p.add_argument(
    '--res', type=int, default=0, help='an earlier resolution of a growing GAN'
  )
  p.add_argument(
    '--standing',
    type=int,
    default=16,
    metavar='N',
    help='batches from which batch statistics are taken anew; 0: the running ones',
  )
  p.add_argument(
    '--interpolate',
    choices=('z', 'w', 'class'),
    help='from each seed to the next: in z, in w (StyleGAN), or in the class alone',
  )
  p.add_argument('--frames', type=int, default=8, help='pictures from seed to seed')
  p.add_argument('--fps', type=int, default=24, help='frames a second of an animation')
  p.add_argument('--columns', type=int, default=8, help='of a sheet')
  p.add_argument('--batch', type=int, default=64, help='pictures at a time')
  return p


def check(args: argparse.Namespace, gan: GAN) -> GAN:
  """The GAN with what the arguments change of it.

  Raises:
    UserError: what this family cannot do, or what nothing can.
  """
  if not isinstance(gan, StyleGAN):
    asked = {
      '--truncated_layers': args.truncated_layers is not None,
      '--noise': args.noise != 'own',
      '--noise_seed': args.noise_seed is not None,
      '--mix': bool(args.mix),
      '--interpolate=w': args.interpolate == 'w',
    }
    for flag in [flag for flag, given in asked.items() if given]:
      raise UserError(f'{flag} is for a StyleGAN, which this model is not.')
    if not args.psi > 0:
      raise UserError(f'--psi={args.psi}: it must be above 0.')
  elif args.mix and args.interpolate:
    raise UserError('--mix and --interpolate are two kinds of sheet: ask for one.')
  elif args.truncated_layers is not None:
    gan = dataclasses.replace(gan, truncated_layers=args.truncated_layers)
  if isinstance(gan, BigGAN) and args.psi != 1 and np.isinf(args.truncation):
    args.truncation = 2.0
  return gan


def mix_ranges(text: str, gan: StyleGAN) -> list[range]:
  """'coarse,2-3' -> ranges of layers.

  Raises:
    UserError: names or layers that are not there.
  """
  named, last = style_ranges(gan), gan.layers(gan.res) - 1
  ranges = []
  for part in text.split(','):
    layers = named.get(part) or parse_numbers(part, 'mix_layers')
    if layers[-1] > last:
      raise UserError(f'--mix_layers={text}: layers are 0-{last}.')
    ranges.append(range(layers[0], layers[-1] + 1))
  return ranges


def main(argv: Sequence[str] | None = None) -> None:
  args = parser().parse_args(argv)
  logging.set_verbosity(logging.ERROR)  # orbax warns of reading what it may not write
  if bool(args.out) == bool(args.export):
    raise UserError('--out for pictures or --export for the generator: give one.')
  out = Path(args.out or args.export)
  allowed = ('.png', '.npz', *sheets.ANIMATIONS)
  if args.out and out.suffix not in ('', *allowed):
    raise UserError(f'--out={out}: end it in {", ".join(allowed)}, or name a folder.')
  for name in ('truncation', 'columns', 'batch', 'frames', 'fps'):
    if not getattr(args, name) > 0:
      raise UserError(f'--{name}={getattr(args, name)}: it must be above 0.')
  run = workdir.read(args.workdir)
  gan = check(args, run.gan)
  plan = plan_pictures(args, gan, args.seeds)
  g, _ = jax.eval_shape(gan.init, jax.random.key(0))
  g, images = checkpoint.restore_ema(args.workdir, g, args.checkpoint)
  phase = run.schedule.phase_at(images, gan.res)
  res, alpha = come_to(args.res, phase)
  mesh = make_mesh()
  size = -(-args.batch // mesh.size) * mesh.size
  if args.standing:
    g = standing_statistics(
      gan, mesh, g, args.standing, size, args.truncation, args.psi
    )
  if isinstance(gan, StyleGAN) and args.noise == 'off':
    g = gan.without_noise(g)
  if args.export:
    files = export.write(gan, g, out, res=res, alpha=alpha)
    print(f'the generator is in {files[0]}, its weights in {files[1]}')
    return
  stored = args.noise == 'stored'
  draw: Callable[..., Array]
  if isinstance(gan, StyleGAN) and (args.mix or args.interpolate == 'w'):
    ws, plan = plan_styles(args, gan, g, plan)
    synthesizer = make_synthesizer(gan, mesh, res, stored)
    draw = lambda ws, noise: synthesizer(g, ws, noise, alpha)
    rows = [ws[:, : gan.layers(res)], noise_of(args, plan)]
  else:
    sampler = make_sampler(gan, mesh, res, stored)
    draw = lambda z, classes, noise: sampler(g, z, classes, args.psi, noise, alpha)
    rows = [plan.z, plan.classes, noise_of(args, plan)]
  batch = min(size, -(-len(rows[0]) // mesh.size) * mesh.size)
  pictures = in_batches(draw, rows, batch)
  if args.mix:
    pictures = framed(pictures, len(parse_numbers(args.seeds, 'seeds')), plan.columns)
  sheets.write(out, pictures, plan.classes, plan.seeds, plan.columns, args.fps)
  print(f'{len(plan.seeds)} pictures in {out}')


def come_to(asked: int, phase: Phase) -> tuple[int, ArrayLike]:
  """The resolution to draw, and how far it has faded in.

  Raises:
    UserError: one that is not there.
  """
  if not asked or asked == phase.res:
    return phase.res, phase.alpha
  if asked > phase.res or asked < 4 or asked & (asked - 1):
    raise UserError(
      f'--res={asked}: this run has come to {phase.res}; allowed are that and, of a '
      'growing GAN, the powers of two from 4 on below it.'
    )
  return asked, 1.0


def noise_of(args: argparse.Namespace, plan: Plan) -> np.ndarray:
  """Seeds of the noise beside z, uint32 [n]."""
  if args.noise_seed is None:
    return plan.seeds
  return np.full(len(plan.seeds), args.noise_seed, np.uint32)


def plan_styles(
  args: argparse.Namespace, gan: StyleGAN, g: Variables, plan: Plan
) -> tuple[np.ndarray, Plan]:
  """ws [n, layers, dim_w] of a mixing sheet or of an interpolation in w.

  A mixing sheet comes as its sources, rows then columns, and then the mixtures.
  """

  @jax.jit
  def styles(z, classes):
    labels = classes if gan.n_classes else jnp.zeros(len(z), jnp.int32)
    return gan.truncate(g, gan.w(g, z, labels), args.psi)

  ws = np.asarray(styles(plan.z, plan.classes))
  if not args.mix:
    classes = between(plan.classes, args.frames)
    return between(ws, args.frames), plan._replace(classes=classes)
  ranges = mix_ranges(args.mix_layers, gan)
  other = plan_pictures(args, gan, args.mix)
  columns = np.asarray(styles(other.z, other.classes))
  n = len(ranges)
  mixed = mixed_styles(ws, columns, ranges)
  seeds = np.concatenate(
    [plan.seeds, other.seeds, np.tile(np.repeat(plan.seeds, len(columns)), n)]
  )
  everything = np.concatenate([ws, columns, mixed])
  classes = np.zeros((len(everything), 1), np.float32)
  return everything, Plan(plan.z, classes, seeds, len(columns) + 1)


def framed(
  pictures: Iterator[np.ndarray], n_rows: int, columns: int
) -> Iterator[np.ndarray]:
  """The sources of a mixing sheet put above and to the left of its mixtures."""
  drawn = np.concatenate(list(pictures))
  rows, tops = drawn[:n_rows], drawn[n_rows : n_rows + columns - 1]
  mixed = drawn[n_rows + columns - 1 :].reshape(-1, columns - 1, *drawn.shape[1:])
  yield np.full_like(drawn[:1], 255)
  yield tops
  for i, line in enumerate(mixed):
    yield np.concatenate([rows[i % n_rows][None], line])


if __name__ == '__main__':
  command(main)
