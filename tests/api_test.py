"""The public API: `import gan_jax` is cheap, names are imported when they are used."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import gan_jax

ROOT = Path(__file__).parent.parent


def run_python(code):
  """Runs code in a fresh interpreter; its stdout and stderr."""
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT
  )
  assert done.returncode == 0, done.stderr[-2000:]
  return done.stdout, done.stderr


def test_importing_the_package_does_not_import_jax():
  heavy = "{'jax', 'flax', 'numpy', 'optax', 'PIL'} & sys.modules.keys()"
  out, err = run_python(f'import gan_jax, sys; print({heavy})')
  assert (out.strip(), err) == ('set()', '')


def test_a_late_import_on_a_cpu_says_so_once():
  code = 'import jax, gan_jax, importlib; importlib.reload(gan_jax)'
  _, err = run_python(f'import os; os.environ.pop("XLA_FLAGS", 0); {code}')
  assert err.count('import gan_jax first') == 1 and len(err.splitlines()) == 1


@pytest.mark.parametrize('name', gan_jax.__all__)
def test_public_names_exist(name):
  assert getattr(gan_jax, name).__name__ == name
  assert name in dir(gan_jax)


def test_an_unknown_name_is_an_attribute_error():
  with pytest.raises(AttributeError, match="'gan_jax' has no attribute 'lod'"):
    _ = gan_jax.lod


@pytest.mark.slow
def test_the_readme_example_works_in_a_fresh_interpreter(tmp_path):
  out, _ = run_python(f"""
import gan_jax
trainer = gan_jax.Trainer(
  gan_jax.load_config('configs/biggan_emoji.py:tiny'), workdir={str(tmp_path)!r}
)
trainer.run(images=16)
generator = gan_jax.load({str(tmp_path)!r})
images = generator.sample(seeds=range(16), truncation=0.5)
print(images.shape, images.dtype)
""")
  assert out.splitlines()[-1] == '(16, 16, 16, 3) uint8'


@pytest.mark.slow
def test_the_quickstart_notebook_runs_and_is_stored_without_outputs(tmp_path):
  notebook = nbformat.read(ROOT / 'docs' / 'quickstart.ipynb', as_version=4)
  cells = [cell for cell in notebook.cells if cell.cell_type == 'code']
  assert all(not cell.outputs and cell.execution_count is None for cell in cells)
  (tmp_path / 'docs').mkdir()
  (tmp_path / 'configs').symlink_to(ROOT / 'configs')
  resources = {'metadata': {'path': tmp_path / 'docs'}}
  NotebookClient(notebook, timeout=300, resources=resources).execute()
  kinds = [set(output.data) for cell in cells for output in cell.outputs[-1:]]
  assert len(kinds) == len(cells) and sum('image/png' in kind for kind in kinds) == 3
