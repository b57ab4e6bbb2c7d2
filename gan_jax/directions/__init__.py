"""Directions in latent space that change what images show."""
