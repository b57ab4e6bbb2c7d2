"""Converts images to a dataset: python -m gan_jax.prepare SRC DEST --res=128 --crop.

DEST gets one folder for each resolution res, res / 2, ..., 4, and a manifest. Each
folder is a tensorflow-datasets set of lossless PNGs in ArrayRecord files
(`tfds.builder_from_files('name/64')`); all hold the same images in the same order.
gan_jax.data opens DEST by its path.

The set is written to DEST.partial, each file atomically, and renamed when it is
complete. If DEST is a URL of a store, it is written on this machine first, and uploaded
with its manifest last. After a kill the same command resumes.
"""

from gan_jax.prepare.command import main
from gan_jax.prepare.fit import fit_image
from gan_jax.prepare.options import PrepareOptions
from gan_jax.prepare.writer import write_dataset

__all__ = ['PrepareOptions', 'fit_image', 'main', 'write_dataset']
