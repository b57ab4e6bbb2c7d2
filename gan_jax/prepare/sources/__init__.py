"""Sources of gan_jax.prepare: what SRC is, recognised by the content of its files."""

from gan_jax.prepare.sources.open_source import open_source

__all__ = ['open_source']
