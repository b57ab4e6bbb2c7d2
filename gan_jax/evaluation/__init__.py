"""Scores of generated images against real ones."""
