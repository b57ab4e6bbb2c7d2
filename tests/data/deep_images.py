"""Images of more than 8 bits per value, which pillow cannot write."""

import struct
import zlib

import numpy as np

_PNG_COLORS = {1: 0, 2: 4, 3: 2, 4: 6}  # number of channels -> PNG color type


def encode_png16(values, transparent=None) -> bytes:
  """A 16-bit PNG of [h, w, c] values; c is 1 to 4.

  Args:
    transparent: the value, for each channel, that tRNS makes transparent.
  """

  def chunk(kind, body):
    checksum = struct.pack('>I', zlib.crc32(kind + body))
    return struct.pack('>I', len(body)) + kind + body + checksum

  h, w, c = values.shape
  rows = values.astype('>u2').reshape(h, w * c)
  body = zlib.compress(b''.join(b'\0' + row.tobytes() for row in rows))
  trns = b''
  if transparent is not None:
    trns = chunk(b'tRNS', struct.pack(f'>{c}H', *transparent))
  header = struct.pack('>IIBBBBB', w, h, 16, _PNG_COLORS[c], 0, 0, 0)
  return b''.join(
    [
      b'\x89PNG\r\n\x1a\n',
      chunk(b'IHDR', header),
      trns,
      chunk(b'IDAT', body),
      chunk(b'IEND', b''),
    ]
  )


def encode_tiff16(
  values, *, order='<', compressed=False, planar=False, photometric=None, extra=()
) -> bytes:
  """A 16-bit TIFF of [h, w, c] values in one strip, or one for each plane.

  Args:
    order: '<' for little-endian, '>' for big-endian.
    photometric: 0 (white is zero), 1 (black is zero) or 2 (RGB).
    extra: meaning of the channels beyond RGB: (1,) premultiplied alpha, (2,) alpha.
  """
  h, w, c = values.shape
  if photometric is None:
    photometric = 1 if c == 1 else 2
  planes = np.moveaxis(values, -1, 0) if planar else values[None]
  strips = [plane.astype(f'{order}u2').tobytes() for plane in planes]
  if compressed:
    strips = [zlib.compress(strip) for strip in strips]
  offsets = np.cumsum([8, *map(len, strips)]).tolist()
  end = offsets.pop()
  short, long = (3, 'H'), (4, 'I')
  tags = [
    *((256, short, [w]), (257, short, [h]), (258, short, [16] * c)),
    *((259, short, [8 if compressed else 1]), (262, short, [photometric])),
    *((273, long, offsets), (277, short, [c]), (278, short, [h])),
    *((279, long, list(map(len, strips))), (284, short, [2 if planar else 1])),
    *([(338, short, list(extra))] if extra else []),
  ]
  entries, heap = b'', b''
  heap_start = end + 2 + 12 * len(tags) + 4
  for tag, (code, letter), numbers in tags:
    packed = struct.pack(f'{order}{len(numbers)}{letter}', *numbers)
    if len(packed) > 4:
      place = struct.pack(f'{order}I', heap_start + len(heap))
      heap += packed
    else:
      place = packed.ljust(4, b'\0')
    entries += struct.pack(f'{order}HHI', tag, code, len(numbers)) + place
  magic = b'II' if order == '<' else b'MM'
  header = magic + struct.pack(f'{order}HI', 42, end)
  directory = struct.pack(f'{order}H', len(tags)) + entries + bytes(4)
  return header + b''.join(strips) + directory + heap
