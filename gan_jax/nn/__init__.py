"""Flax modules and normalization functions that the GAN families are built of."""
