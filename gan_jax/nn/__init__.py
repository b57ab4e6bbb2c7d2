"""Flax modules: layers, normalisation, spectral normalisation."""
