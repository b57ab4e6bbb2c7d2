"""The size that a JPEG XL file declares, read before anything is decoded.

pillow's plugin decodes an image while it opens it, so that the limit on the number of
pixels would come too late. Format: ISO/IEC 18181-1, SizeHeader; 18181-2, boxes.
"""

_CODESTREAM = b'\xff\x0a'
_CONTAINER = b'\0\0\0\x0cJXL \r\n\x87\n'
_SIZE_BITS = (9, 13, 18, 30)
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))  # width : height


def jxl_size(content: bytes) -> tuple[int, int] | None:
  """(width, height) that a JPEG XL image declares; None for any other content."""
  if content.startswith(_CODESTREAM):
    return _read_size(content[2:20])
  if content.startswith(_CONTAINER):
    codestream = _find_codestream(content)
    if codestream.startswith(_CODESTREAM):
      return _read_size(codestream[2:])
  return None


def _find_codestream(content: bytes) -> bytes:
  """The first bytes of the codestream in a container; empty if there is none."""
  position = 0
  while position + 8 <= len(content):
    size = int.from_bytes(content[position : position + 4])
    kind, header = content[position + 4 : position + 8], 8
    if size == 1:
      size, header = int.from_bytes(content[position + 8 : position + 16]), 16
    if kind in (b'jxlc', b'jxlp'):
      start = position + header + (4 if kind == b'jxlp' else 0)  # the part's number
      return content[start : start + 20]
    if size < header:  # 0: up to the end of the file
      break
    position += size
  return b''


def _read_size(bits: bytes) -> tuple[int, int]:
  """Reads a SizeHeader, whose bits begin with the lowest one of each byte."""
  value = int.from_bytes(bits, 'little')

  def take(n: int) -> int:
    nonlocal value
    taken, value = value & ((1 << n) - 1), value >> n
    return taken

  is_small = take(1)

  def side() -> int:
    return 8 * (1 + take(5)) if is_small else 1 + take(_SIZE_BITS[take(2)])

  height = side()
  if ratio := take(3):
    numerator, denominator = _RATIOS[ratio - 1]
    return height * numerator // denominator, height
  return side(), height
