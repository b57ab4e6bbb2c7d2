"""Scores of generated images against real ones: metrics, protocols, and comparisons."""
