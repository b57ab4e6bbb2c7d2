"""Pictures from a trained generator: python -m gan_jax.sample --workdir=DIR ..."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.typing import ArrayLike
from PIL import Image
from tqdm import tqdm

from gan_jax import UserError, checkpoint, recipe
from gan_jax.gan import GAN, Variables
from gan_jax.layers import AXIS
from gan_jax.step import make_mesh

Sampler = Callable[[Variables, ArrayLike, ArrayLike, ArrayLike], Array]


def latents(seeds: ArrayLike, dim_z: int, truncation: ArrayLike = np.inf) -> Array:
  """z [n, dim_z] of each seed; entries beyond +-truncation are drawn again.

  That is a normal cut at the threshold, drawn directly. `inf` does not truncate.
  """

  def one(seed):
    key = jax.random.key(seed)
    t = jnp.minimum(jnp.asarray(truncation, jnp.float32), 5)  # beyond: never used
    cut = jax.random.truncated_normal(key, -t, t, (dim_z,))
    return jnp.where(jnp.isinf(truncation), jax.random.normal(key, (dim_z,)), cut)

  return jax.vmap(one)(jnp.asarray(seeds))


def class_of_seed(seeds: ArrayLike, n_classes: int) -> Array:
  """The class a seed shows unless one is asked for, int32 [n], uniform."""

  def one(seed):
    key = jax.random.fold_in(jax.random.key(seed), 1)
    return jax.random.randint(key, (), 0, max(n_classes, 1))

  return jax.vmap(one)(jnp.asarray(seeds))


def make_sampler(gan: GAN, mesh: Mesh) -> Sampler:
  """Compiles (g, z [n, dim_z], classes [n, n_classes], psi) -> uint8 [n, h, w, c].

  The batch is split over the mesh; classes are weights, one-hot for one class.
  Truncation is in z and in psi, so sweeping it compiles nothing new.
  """
  split, whole = NamedSharding(mesh, P(AXIS)), NamedSharding(mesh, P())

  def sample(g, z, classes, psi):
    labels = classes if gan.n_classes else jnp.zeros(len(z), jnp.int32)
    images = gan.generate(g, z, labels, psi)
    return jnp.clip(jnp.round((images + 1) * 127.5), 0, 255).astype(jnp.uint8)

  shardings = (whole, split, split, whole)
  return jax.jit(sample, in_shardings=shardings, out_shardings=split)


def make_standing(gan: GAN, mesh: Mesh) -> Callable[..., Variables]:
  """Compiles `gan.standing`, its batches z [n, b, dim_z], labels [n, b] split."""
  specs = (P(), P(None, AXIS), P(None, AXIS))
  return jax.jit(
    jax.shard_map(
      gan.standing, mesh=mesh, in_specs=specs, out_specs=P(), check_vma=False
    )
  )


def standing_statistics(
  gan: GAN,
  mesh: Mesh,
  g: Variables,
  passes: int,
  batch: int,
  truncation: float = np.inf,
  psi: float = 1.0,
) -> Variables:
  """g with the batch statistics of this truncation, averaged over `passes` batches."""
  if 'batch_stats' not in g:
    return g
  seeds = np.uint32(2**32 - 1) - np.arange(passes * batch, dtype=np.uint32)
  z = psi * latents(seeds, gan.dim_z, truncation).reshape(passes, batch, -1)
  labels = class_of_seed(seeds, gan.n_classes).reshape(passes, batch)
  return make_standing(gan, mesh)(g, z, labels)


def sheet(images: np.ndarray, columns: int) -> Image.Image:
  """uint8 [n, h, w, c] as one picture, row by row, two white pixels apart."""
  n, h, w, c = images.shape
  rows = -(-n // columns)
  page = np.full((rows * (h + 2) + 2, columns * (w + 2) + 2, c), 255, np.uint8)
  for i, image in enumerate(images):
    y, x = (i // columns) * (h + 2) + 2, (i % columns) * (w + 2) + 2
    page[y : y + h, x : x + w] = image
  return Image.fromarray(page.squeeze(-1) if c == 1 else page)


def generate_all(
  sampler: Sampler,
  g: Variables,
  z: np.ndarray,
  classes: np.ndarray,
  psi: float,
  batch: int,
) -> Iterator[np.ndarray]:
  """Batches of pictures, the last one shorter; every call has one and the same size."""
  for start in range(0, len(z), batch):
    n = len(z[start : start + batch])
    rows = np.minimum(np.arange(start, start + batch), start + n - 1)
    yield np.asarray(sampler(g, z[rows], classes[rows], psi))[:n]


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


def plan_pictures(args: argparse.Namespace, gan: GAN) -> tuple[Any, Any, Any, int]:
  """What the arguments ask for: z, class weights, seeds, and columns of a sheet."""
  if args.num:
    seeds = list(range(args.num))
  else:
    seeds = parse_numbers(args.seeds, 'seeds')
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
  columns = args.columns
  if args.grid:
    rows = asked or list(range(gan.n_classes))
    labels = np.repeat(rows, len(seeds))
    z, drawn, columns = (
      np.tile(z, (len(rows), 1)),
      np.tile(drawn, len(rows)),
      len(seeds),
    )
    classes = one_hot[labels]
  elif asked:
    classes = one_hot[np.resize(asked, len(seeds))]
  else:
    classes = one_hot[np.asarray(class_of_seed(drawn, gan.n_classes))]
  if args.interpolate:
    if len(z) < 2:
      raise UserError('--interpolate needs at least two seeds.')
    t = np.linspace(0, 1, args.frames, dtype=np.float32)[:, None]

    def between(x):
      return np.concatenate(
        [(1 - t) * a + t * b for a, b in zip(x[:-1], x[1:], strict=True)]
      )

    pairs = len(z) - 1
    classes = between(classes)
    z = between(z) if args.interpolate == 'z' else np.repeat(z[:1], len(classes), 0)
    drawn, columns = np.repeat(drawn[:pairs], args.frames), args.frames
  return z, classes, drawn, columns


def write(
  out: Path, images: Iterator[np.ndarray], classes: Any, seeds: Any, columns: int
) -> None:
  """A .png sheet, an .npz, or numbered PNGs in a folder; whole or not at all."""
  total = len(classes)
  progress = tqdm(total=total, unit='img', disable=total < 256)

  def counted():
    for batch in images:
      progress.update(len(batch))
      yield batch

  out.parent.mkdir(parents=True, exist_ok=True)
  if out.suffix in ('.png', '.npz'):
    everything = np.concatenate(list(counted()))
    part = out.with_name(f'.{out.stem}.part{out.suffix}')
    if out.suffix == '.png':
      sheet(everything, columns).save(part)
    else:
      labels = classes.argmax(-1).astype(np.int32)
      np.savez(part, images=everything, labels=labels, seeds=seeds)
    os.replace(part, out)
  else:
    out.mkdir(exist_ok=True)
    number = 0
    for batch in counted():
      for image in batch:
        sheet_of_one = image.squeeze(-1) if image.shape[-1] == 1 else image
        Image.fromarray(sheet_of_one).save(out / f'{number:06d}.png')
        number += 1
  progress.close()


def parser() -> argparse.ArgumentParser:
  p = argparse.ArgumentParser(
    prog='python -m gan_jax.sample',
    description='Draws pictures with the averaged generator of a run.',
  )
  p.add_argument('--workdir', required=True, help='folder of the run')
  p.add_argument(
    '--out', required=True, help='sheet.png, images.npz, or a folder for numbered PNGs'
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
    help='scale z, a normal cut at 2 unless --truncation says otherwise',
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
    choices=('z', 'class'),
    help='a row from each seed to the next: in z, or in the class alone',
  )
  p.add_argument('--frames', type=int, default=8, help='pictures per interpolation')
  p.add_argument('--columns', type=int, default=8, help='of a sheet')
  p.add_argument('--batch', type=int, default=64, help='pictures at a time')
  return p


def main(argv: Sequence[str] | None = None) -> None:
  args = parser().parse_args(argv)
  out = Path(args.out)
  if out.suffix not in ('', '.png', '.npz'):
    raise UserError(f'--out={out}: end it in .png, .npz or name a folder.')
  for name in ('truncation', 'psi', 'columns', 'batch', 'frames'):
    if not getattr(args, name) > 0:
      raise UserError(f'--{name}={getattr(args, name)}: it must be above 0.')
  if args.psi != 1 and np.isinf(args.truncation):
    args.truncation = 2.0
  gan = read_gan(args.workdir)
  z, classes, seeds, columns = plan_pictures(args, gan)
  g, _ = jax.eval_shape(gan.init, jax.random.key(0))
  g = checkpoint.restore_ema(args.workdir, g, args.checkpoint)
  mesh = make_mesh()
  batch = -(-min(args.batch, len(z)) // mesh.size) * mesh.size
  if args.standing:
    size = -(-args.batch // mesh.size) * mesh.size
    g = standing_statistics(
      gan, mesh, g, args.standing, size, args.truncation, args.psi
    )
  images = generate_all(make_sampler(gan, mesh), g, z, classes, args.psi, batch)
  write(out, images, classes, seeds, columns)
  print(f'{len(z)} pictures in {out}')


def read_gan(workdir: str | Path) -> GAN:
  """The GAN of a run, from the config it wrote.

  Raises:
    UserError: there is no run.
  """
  path = Path(workdir) / 'config.json'
  if not path.is_file():
    raise UserError(f'{workdir} is not the folder of a run: there is no {path.name}.')
  return recipe.build_gan(json.loads(path.read_text())['model'])


if __name__ == '__main__':
  try:
    main()
  except UserError as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(2)
