"""What a folder holds: files of weights by their role, or something else, by name."""

import itertools
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gan_jax import UserError
from gan_jax.runtime.errors import closest
from gan_jax.storage.file_kinds import IMPORTED

# Endings of files of weights; the first ones are preferred. Contents decide the format.
ENDINGS = ('.pth', '.npz', '.safetensors', '.pt', '.bin', '.ckpt', '.pkl', '.pickle')
ROLES = ('G', 'G_ema', 'D')
_COMPRESSED = ('', '.gz', '.bz2', '.xz')
_ENDING = rf'(?:{"|".join(map(re.escape, ENDINGS))})(?:\.gz|\.bz2|\.xz)?'


def role_file(folder: Path, role: str, suffix: str) -> Path | None:
  """The file of a role such as 'G_ema' in a BigGAN-PyTorch folder, if there is one."""
  stem = f'{role}_{suffix}' if suffix else role
  paths = (folder / f'{stem}{e}{c}' for e in ENDINGS for c in _COMPRESSED)
  return next((path for path in paths if path.is_file()), None)


def suffixed_files(folder: Path) -> dict[str, list[str]]:
  """Suffix -> the names of files of G, G_ema and D that have it, as G_best3.pth."""
  found: dict[str, list[str]] = {}
  for name in _names(folder):
    match = re.fullmatch(rf'(?:G_ema|G|D)_(?!optim|ema)(.+?){_ENDING}', name)
    if match and (folder / name).is_file():
      found.setdefault(match[1], []).append(name)
  return found


def refuse_part(path: Path) -> None:
  """Rejects a file of one network whose others lie beside it in the same folder.

  Raises:
    UserError: the folder is to be given, with the suffix of the file's name.
  """
  match = re.fullmatch(
    rf'(G_ema|G|D|G_optim|D_optim|state_dict)(?:_((?!optim|ema).+?))?{_ENDING}',
    path.name,
  )
  if not match:
    return
  role, suffix = match[1], match[2] or ''
  others = [role_file(path.parent, r, suffix) for r in ROLES if r != role]
  if names := [other.name for other in others if other]:
    flag = f' with --suffix={suffix}' if suffix else ''
    raise UserError(
      f'{path} is one of several files (beside {", ".join(names)}): give the folder '
      f'{path.parent}{flag}.'
    )


def refuse_own(folder: Path) -> None:
  """Rejects folders that gan_jax or tensorflow-datasets have written.

  Raises:
    UserError: a run, a part of it, a prepared data set or an exported generator.
  """
  for run in (folder, *list(folder.parents)[:3]):
    inside = folder.relative_to(run).parts
    if _is_run(run) and (not inside or inside[0] == 'checkpoints'):
      raise UserError(
        f'{folder} is {"part of " if inside else ""}a run of gan_jax, not published '
        f'weights: sample it with python -m gan_jax.sample --workdir={run}, train on '
        'with that --workdir, or begin another run with '
        f'--config.finetune.source={run}.'
      )
  manifest = _json(folder / 'manifest.json')
  if 'levels' in manifest and 'histogram' in manifest:
    raise UserError(
      f'{folder} is a data set that gan_jax.prepare wrote, not weights: train on it '
      f'with --config.data.name={folder}.'
    )
  if (folder / 'dataset_info.json').is_file():
    raise UserError(f'{folder} is a data set of tensorflow-datasets, not weights.')
  if programs := [name for name in _names(folder) if name.endswith('.stablehlo')]:
    raise UserError(exported(folder / programs[0], folder))


def exported(program: Path, source: Path) -> str:
  """The error for a source that is, or belongs to, an exported program."""
  return (
    f'{source} is a generator that gan_jax exported: sample it with python -m '
    f'gan_jax.sample --program={program}, or train on the run it comes from.'
  )


def _is_run(folder: Path) -> bool:
  config = _json(folder / 'config.json')
  return 'model' in config and ('schedule' in config or 'train' in config)


def other_folder_error(folder: Path, suffix: str) -> UserError:
  """The error for a folder without a generator: what it has instead."""
  names = _names(folder)
  for describe in (_suffixes, _links, _framework, _files, _subfolders):
    if description := describe(folder, names, suffix):
      return UserError(f'{folder} {description}.')
  some = ', '.join(names[:5]) + (', ...' if len(names) > 5 else '')
  held = f'has {some}, which are no weights' if names else 'is an empty folder'
  return UserError(f'{folder} {held}: {IMPORTED}.')


def _suffixes(folder: Path, names: list[str], suffix: str) -> str:
  """The suffixes that are there, or the D without a G."""
  end = f'_{suffix}' if suffix else ''
  lacks = f'has no G{end}.pth or G_ema{end}.pth'
  by_suffix = suffixed_files(folder)
  if suffix and (plain := [p.name for r in ROLES if (p := role_file(folder, r, ''))]):
    by_suffix[''] = plain
  others = {s: files for s, files in by_suffix.items() if s != suffix}
  if others:
    complete = [s for s, files in others.items() if any(f[0] == 'G' for f in files)]
    best = next(iter(closest(suffix, complete) or complete or others))
    files = [name for listed in others.values() for name in listed]
    some = ', '.join(files[:8]) + (', ...' if len(files) > 8 else '')
    flag = f'--suffix={best}' if best else 'without --suffix, the import'
    return f'{lacks} but {some}: {flag} reads {" and ".join(others[best])}'
  if role_file(folder, 'D', suffix):
    return f'{lacks}: it has a discriminator only, and a run needs a generator'
  return ''


def _links(folder: Path, names: list[str], suffix: str) -> str:
  """The links to files of weights that are missing."""
  for name in names:
    path = folder / name
    if re.search(f'{_ENDING}$', name) and path.is_symlink() and not path.exists():
      return f'has {name}, {missing_target(path)}'
  return ''


def missing_target(link: Path) -> str:
  """What a link is whose target is missing."""
  target = os.readlink(link)
  fetch = 'run `git annex get`' if '/annex/' in target else 'fetch that file again'
  return f'which is a link to {target[:200]}, where there is no file: {fetch}'


def _framework(folder: Path, names: list[str], suffix: str) -> str:
  """What the files of other frameworks are."""
  if 'data.pkl' in names and 'data' in names:
    return (
      'has the unpacked members of a file of torch.save (data.pkl, data/): download '
      'the file again without unpacking it'
    )
  if 'saved_model.pb' in names or 'tfhub_module.pb' in names:
    what = 'a TensorFlow SavedModel'
  elif any(re.search(r'\.index$|\.data-\d{5}-of-\d{5}$', name) for name in names):
    what = 'a folder of TensorFlow checkpoints'
  elif 'model_index.json' in names:
    what = 'a pipeline of Hugging Face diffusers'
  elif any(name.endswith('.index.json') for name in names):
    what = 'a Hugging Face model in several parts, which BigGAN never is'
  else:
    return ''
  return f'is {what}: {IMPORTED}'


def _files(folder: Path, names: list[str], suffix: str) -> str:
  """The files of weights with other names."""
  files = [n for n in names if re.search(f'{_ENDING}$', n) and (folder / n).is_file()]
  if 'config.json' not in names and any(n.startswith('pytorch_model') for n in files):
    return f'lacks the config.json of the Hugging Face model beside {files[0]}'
  if files:
    return f'has {", ".join(files[:5])}: give the file, such as {folder / files[0]}'
  return ''


def _subfolders(folder: Path, names: list[str], suffix: str) -> str:
  """The subfolder that has weights or is a run, or images."""
  for inside in itertools.islice(_folders_in(folder, depth=3), 300):
    if _is_run(inside):
      return (
        'has runs of gan_jax, not weights: sample one with python -m gan_jax.sample '
        f'--workdir={inside}'
      )
    files = [n for n in _names(inside) if re.search(f'{_ENDING}$', n)]
    if files:
      return (
        f'has no weights, but {inside} has {", ".join(files[:3])}: give that folder'
      )
  images = [n for n in names if n.lower().endswith(('.png', '.jpg', '.jpeg', '.webp'))]
  if images:
    return (
      f'has images ({images[0]}, ...), not weights: train on them with '
      f'--config.data.name={folder}'
    )
  return ''


def _folders_in(folder: Path, depth: int) -> Iterator[Path]:
  """The folders inside, each before those inside it; links are not followed."""
  for name in _names(folder):
    inside = folder / name
    if inside.is_dir() and not inside.is_symlink():
      yield inside
      if depth > 1:
        yield from _folders_in(inside, depth - 1)


def _names(folder: Path) -> list[str]:
  """The names in a folder, sorted; [] if there is no such folder."""
  return sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []


def _json(path: Path) -> dict[str, Any]:
  """The object in a JSON file; {} if there is none."""
  try:
    value = json.loads(path.read_text()) if path.is_file() else {}
  except (OSError, ValueError):
    return {}
  return value if isinstance(value, dict) else {}
