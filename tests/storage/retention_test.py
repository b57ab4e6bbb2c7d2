"""Unfinished checkpoints are deleted to the last file."""

import contextlib

from gan_jax.storage import retention


def test_files_that_threads_add_to_a_failed_save_are_deleted_too(tmp_path, monkeypatch):
  part = tmp_path / '2.orbax-checkpoint-tmp'
  part.mkdir()
  late = [part / 'second', part / 'first']

  def remove(folder, ignore_errors):
    files = list(folder.iterdir())
    if late:
      late.pop().touch()  # a thread writes before the folder itself is removed
    for file in files:
      file.unlink()
    with contextlib.suppress(OSError):
      folder.rmdir()

  monkeypatch.setattr(retention.shutil, 'rmtree', remove)
  monkeypatch.setattr(retention, '_PAUSE', 0)
  retention.remove_unfinished(tmp_path)
  assert not part.exists() and not late
