"""Runs an exported generator with jax alone: GENERATOR INPUTS.npz IMAGES.npy."""

import sys

import jax
import numpy as np
from jax import export

path, inputs_path, images_path = sys.argv[1:]
with open(path, 'rb') as f:
  generator = export.deserialize(bytearray(f.read()))
inputs = np.load(inputs_path)
images = jax.jit(generator.call)(inputs['z'], inputs['classes'], inputs['psi'])
assert 'gan_jax' not in sys.modules
np.save(images_path, np.asarray(images))
