"""Prepares each SRC DEST of its arguments, and prints the peak memory after each."""

import resource
import sys

from gan_jax import prepare

if __name__ == '__main__':
  for src, dest in zip(sys.argv[1::2], sys.argv[2::2]):
    prepare.main([src, dest, '--res=16', '--crop', '--skip_bad', '--threads=2'])
    print('peak_kb', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
