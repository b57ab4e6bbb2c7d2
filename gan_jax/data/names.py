"""Names of files: one form in folders, zips and label tables; what is no image data."""

import unicodedata

_SYSTEM_NAMES = {  # in lower case -> what the file or folder is
  '@eadir': 'thumbnails of a NAS (Synology)',
  '@eadir_tmp': 'thumbnails of a NAS (Synology)',
  '@tmp': 'temporary files of a NAS (Synology)',
  '@synoresource': 'metadata of a NAS (Synology)',
  '#recycle': 'the recycle bin of a NAS (Synology)',
  '#snapshot': 'snapshots of a NAS (Synology)',
  '@recycle': 'the recycle bin of a NAS (QNAP)',
  '@recently-snapshot': 'snapshots of a NAS (QNAP)',
  '$recycle.bin': 'the recycle bin of Windows',
  'recycled': 'the recycle bin of Windows',
  'recycler': 'the recycle bin of Windows',
  'found.000': 'recovered files of a Windows disk',
  'system volume information': 'system files of Windows',
  'desktop.ini': 'settings of Windows',
  'thumbs.db': 'thumbnails of Windows',
  'thumbs.db:encryptable': 'thumbnails of Windows',
  'ehthumbs.db': 'thumbnails of Windows',
  'ehthumbs_vista.db': 'thumbnails of Windows',
  '__macosx': 'metadata of macOS',
  'icon\r': 'a folder icon of macOS',
  'network trash folder': 'the trash of macOS',
  'temporary items': 'temporary files of macOS',
  'lost+found': 'recovered files of a Linux disk',
  '__pycache__': 'compiled Python',
  'node_modules': 'packages of JavaScript',
}


def path_form(name: str) -> str:
  r"""The relative path that a name means: 'sub/x.png' for '.\sub\x.png', 'sub//x.png'.

  Archives made on Windows separate folders by backslashes, and leave files with
  backslashes in their names where they are unpacked by a program that keeps them.
  """
  if '\\' in name:
    name = name.replace('\\', '/')
  if name.startswith(('.', '/')) or '//' in name or '/.' in name or name.endswith('/'):
    name = '/'.join(part for part in name.split('/') if part not in ('', '.'))
  return name


def compose(name: str) -> str:
  """Unicode form NFC: macOS decomposes the names of files (NFD), others do not."""
  return name if name.isascii() else unicodedata.normalize('NFC', name)


def normal_form(name: str) -> str:
  """What two names of one file have in common: path, NFC, suffix in lower case."""
  name = compose(path_form(name))
  dot = name.rfind('.')
  return name[:dot] + name[dot:].lower() if dot > name.rfind('/') + 1 else name


def suffix_of(name: str) -> str:
  """The suffix in lower case, such as '.png'; '' if there is none."""
  dot = name.rfind('.')
  return name[dot:].lower() if dot > name.rfind('/') + 1 else ''


def system_reason(part: str) -> str:
  """Why a file or folder of this name (no path) is no image data; else ''."""
  if part.startswith('.'):
    return 'is hidden'
  known = _SYSTEM_NAMES.get(part.lower())
  return f'holds {known}' if known else ''


def escape_unprintable(name: str) -> str:
  """Escapes control characters and invalid Unicode of a file's name for a terminal."""
  if name.isascii() and name.isprintable():
    return name
  text = name.encode('utf-8', 'backslashreplace').decode()
  return ''.join(c if c.isprintable() else repr(c)[1:-1] for c in text)
