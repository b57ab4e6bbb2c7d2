"""Hostile images."""

import struct
import zlib


def pixel_bomb(width=100_000, height=100_000) -> bytes:
  """A small PNG with a valid header that declares width x height pixels."""

  def chunk(kind, body):
    checksum = struct.pack('>I', zlib.crc32(kind + body))
    return struct.pack('>I', len(body)) + kind + body + checksum

  header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
  return (
    b'\x89PNG\r\n\x1a\n'
    + chunk(b'IHDR', header)
    + chunk(b'IDAT', zlib.compress(bytes(1000)))
    + chunk(b'IEND', b'')
  )
