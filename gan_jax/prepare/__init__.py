"""Pictures become a data set: python -m gan_jax.prepare SRC DEST --res=128 --crop.

DEST gets a folder for each resolution, res, res / 2, ..., 4, each a tensorflow-datasets
set of lossless PNGs in ArrayRecord (`tfds.builder_from_files('name/64')`), with the
same pictures in the same order, and a manifest. gan_jax.data reads it by its path.

It is written as DEST.partial, a file at a time and each of them whole, and renamed when
all is there. What was killed goes on with the same command.
"""

from gan_jax.prepare.command import main
from gan_jax.prepare.survey import Options
from gan_jax.prepare.writer import fitted, prepare

__all__ = ['Options', 'fitted', 'main', 'prepare']
