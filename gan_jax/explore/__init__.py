"""The explorer, a web page around one generator: python -m gan_jax.explore.

`session` translates control values into sampling options and command lines; `view` lays
out the page.
"""
