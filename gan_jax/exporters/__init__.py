"""Writes the weights of a run as the original codes name them."""
