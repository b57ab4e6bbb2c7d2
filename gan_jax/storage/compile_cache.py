"""The folder of compiled programs, which spares a second start the compile."""

import contextlib
import importlib
import os
import types
from pathlib import Path
from typing import Any

import filelock
import jax

from gan_jax import UserError
from gan_jax.runtime.environment import runs_on_cpu
from gan_jax.storage.files import cache_folder

MAX_BYTES = 4 * 2**30  # from then on, the programs that were not used longest go
LOCK_SECONDS = 10  # as long as jax itself waits


def use_compile_cache(process: int = 0) -> None:
  """Keeps compiled programs in $GAN_JAX_CACHE/jax or ~/.cache/gan_jax/jax.

  A job's processes besides the first have a folder each, inside of that one. Programs
  that a killed process has written in part are dropped. Where the folder cannot be
  written or locked, nothing is kept. JAX_COMPILATION_CACHE_DIR and jax's other settings
  take precedence.

  Args:
    process: the number of this process in its job.
  """
  named = getattr(jax.config, 'jax_compilation_cache_dir')  # noqa: B009
  if process and (runs_on_cpu() or not named):
    _write_on_this_process()
  if named:
    return
  try:
    folder = cache_folder('jax') / (f'process{process}' if process else '')
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with filelock.FileLock(folder / '.lockfile', LOCK_SECONDS):
      drop_partial_entries(folder)
  except (OSError, NotImplementedError, RuntimeError, UserError):
    return
  jax.config.update('jax_compilation_cache_dir', str(folder))
  for name, value in (
    ('jax_compilation_cache_max_size', MAX_BYTES),
    ('jax_persistent_cache_min_compile_time_secs', 0.0),
  ):
    if name.upper() not in os.environ:
      jax.config.update(name, value)


def drop_partial_entries(folder: Path) -> None:
  """Deletes the programs of a cache that were written in part.

  jax writes KEY-cache, then KEY-atime; with a limit of size it does so under a lock,
  which the caller holds. It neither replaces an entry nor evicts any where one lacks
  its time.
  """
  for program in folder.glob('*-cache'):
    used = program.with_name(program.name.removesuffix('-cache') + '-atime')
    with contextlib.suppress(FileNotFoundError):
      if not used.is_file() or used.stat().st_size != 8:
        program.unlink()
        used.unlink(missing_ok=True)


def _write_on_this_process() -> None:
  """Makes a process besides the first of a job write its programs too.

  jax leaves that to process 0, as all find them under the same key. On CPUs the key
  depends on the process, and on pods without a shared home each host has its folder.
  There is no setting for it, so jax's function is given another process number; where
  jax has changed, it stays as it is.
  """
  with contextlib.suppress(ImportError, AttributeError):
    compiler: Any = importlib.import_module('jax._src.compiler')
    write = compiler._cache_write
    first = types.SimpleNamespace(global_state=types.SimpleNamespace(process_id=0))
    names = {**write.__globals__, 'distributed': first}
    compiler._cache_write = types.FunctionType(write.__code__, names)
