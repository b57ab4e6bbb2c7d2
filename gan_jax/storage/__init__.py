"""Files: atomic writes, JSON lines, checkpoints, weight files that are not trusted."""
