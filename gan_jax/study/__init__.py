"""Scaling studies: grids of runs, planned and trained, with one page of answers."""
