"""Plans a run: compiles its step for a pod, without one, and says what it will cost."""
