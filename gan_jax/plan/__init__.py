"""Plans a run: compiles its training step for a topology, and predicts its cost."""
