"""A generator in the browser: python -m gan_jax.explore --workdir=DIR.

`desk` knows what can be drawn and how a command line says it; `page` shows it.
"""
