"""Image formats: which ones are read here, their file suffixes and their signatures.

pillow reads most formats itself. AVIF, HEIC and JPEG XL are read where pillow or one of
its plugins decodes them (extra `formats`). The content of a file decides its format;
the suffix only says that a file claims to be an image.
"""

import contextlib
import dataclasses
import functools
import importlib

from PIL import features


@dataclasses.dataclass(frozen=True)
class ImageFormat:
  """A format that can be read, at least after installing a package.

  Attributes:
    name: as pillow calls it.
    suffixes: lower-case.
    package: the package that reads it, if pillow alone may not.
  """

  name: str
  suffixes: tuple[str, ...]
  package: str = ''


IMAGE_FORMATS = (  # tried in this order
  ImageFormat('BMP', ('.bmp', '.dib')),
  ImageFormat('GIF', ('.gif',)),
  ImageFormat('JPEG', ('.jfif', '.jif', '.jpe', '.jpeg', '.jpg')),
  ImageFormat('PNG', ('.apng', '.png')),
  ImageFormat('PPM', ('.pbm', '.pfm', '.pgm', '.pnm', '.ppm')),
  ImageFormat('TIFF', ('.tif', '.tiff')),
  ImageFormat('WEBP', ('.webp',)),
  ImageFormat('AVIF', ('.avif', '.avifs'), 'pillow-avif-plugin'),
  ImageFormat('HEIF', ('.heic', '.heif', '.hif'), 'pillow-heif'),
  ImageFormat('JXL', ('.jxl',), 'pillow-jxl-plugin'),
)
_NEVER_READ = {
  '.dds': 'DDS',
  '.eps': 'EPS',
  '.exr': 'OpenEXR',
  '.hdr': 'Radiance HDR',
  '.ico': 'icon',
  '.jxr': 'JPEG XR',
  '.pcx': 'PCX',
  '.psd': 'Photoshop',
  '.svg': 'SVG',
  '.tga': 'TGA',
  '.xcf': 'GIMP',
  **dict.fromkeys(('.j2k', '.jp2', '.jpx'), 'JPEG 2000'),
  **dict.fromkeys(
    ('.arw', '.cr2', '.cr3', '.dng', '.nef', '.orf', '.raf', '.raw', '.rw2'),
    'raw camera data',
  ),
}
_SIGNATURES = (  # (offset, bytes, format) of content that no reader accepted
  (0, b'BM', 'BMP'),
  (0, b'GIF8', 'GIF'),
  (0, b'\xff\xd8\xff', 'JPEG'),
  (0, b'\x89PNG\r\n\x1a\n', 'PNG'),
  (0, b'II*\0', 'TIFF'),
  (0, b'II+\0', 'TIFF'),
  (0, b'MM\0*', 'TIFF'),
  (0, b'MM\0+', 'TIFF'),
  (8, b'WEBP', 'WEBP'),
  *((4, b'ftyp' + brand, 'AVIF') for brand in (b'avif', b'avis')),
  *(
    (4, b'ftyp' + brand, 'HEIF')
    for brand in (b'heic', b'heix', b'heim', b'heis', b'hevc', b'hevx', b'mif1')
  ),
  (0, b'\xff\x0a', 'JXL'),
  (0, b'\0\0\0\x0cJXL \r\n\x87\n', 'JXL'),
)
_OTHER_CONTENT = (  # (first bytes in lower case, what the file is)
  (b'version https://git-lfs', 'a Git LFS pointer (git lfs pull fetches the file)'),
  (b'<!doctype html', 'a web page, as a failed download leaves it'),
  (b'<html', 'a web page, as a failed download leaves it'),
)


@functools.cache
def readable_formats() -> tuple[str, ...]:
  """pillow's names of the formats that are read here, in the order they are tried."""
  return tuple(f.name for f in IMAGE_FORMATS if _is_readable(f.name))


@functools.cache
def readable_suffixes() -> frozenset[str]:
  """Lower-case suffixes of the formats that are read here: '.png', ..."""
  readable = readable_formats()
  return frozenset(s for f in IMAGE_FORMATS if f.name in readable for s in f.suffixes)


def unreadable_format(suffix: str) -> str:
  """Why image files with this suffix are not read here, as a predicate.

  Args:
    suffix: with its dot, in upper or lower case.

  Returns:
    '' if such files are read, or if the suffix is not that of an image format.
  """
  suffix = suffix.lower()
  for image_format in IMAGE_FORMATS:
    if suffix in image_format.suffixes:
      readable = image_format.name in readable_formats()
      return '' if readable else _needs_package(image_format)
  if name := _NEVER_READ.get(suffix):
    return f'is of the format {name}, which is not read (formats: {format_names()})'
  return ''


def unidentified_content(content: bytes) -> str:
  """Why no reader accepts this content, as a predicate whose subject is the file."""
  start = content[:64].lstrip().lower()
  for beginning, description in _OTHER_CONTENT:
    if start.startswith(beginning):
      return f'is not an image but {description}'
  for offset, signature, name in _SIGNATURES:
    if content[offset : offset + len(signature)] == signature:
      if name in readable_formats():
        return f'is a {name} file that is corrupted or of an unknown kind'
      return _needs_package(next(f for f in IMAGE_FORMATS if f.name == name))
  return f'is not an image (supported formats: {format_names()})'


def format_names() -> str:
  """'BMP, GIF, JPEG, ...': the formats that are read here."""
  return ', '.join(readable_formats())


def _needs_package(image_format: ImageFormat) -> str:
  return (
    f'is of the format {image_format.name}, which needs a package: '
    f'pip install {image_format.package}'
  )


def _is_readable(name: str) -> bool:
  """Whether pillow reads a format; registers the plugin that it needs."""
  with contextlib.suppress(ImportError):
    if name == 'AVIF' and not features.check('avif'):
      importlib.import_module('pillow_avif')  # importing registers it
    elif name == 'HEIF':
      importlib.import_module('pillow_heif').register_heif_opener()
    elif name == 'JXL':
      importlib.import_module('pillow_jxl')  # importing registers it
    return True
  return False


def format_of_content(head: bytes) -> str:
  """The format that the first 32 bytes of a file declare beyond doubt, or ''."""
  for offset, signature, name in _SIGNATURES:
    if len(signature) > 2 and head[offset : offset + len(signature)] == signature:
      return name
  return ''
