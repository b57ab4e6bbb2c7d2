"""Projection: latents of given images, by optimization."""
