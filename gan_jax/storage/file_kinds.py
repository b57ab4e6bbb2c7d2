"""What a file is that was taken for a file of weights, by its first bytes.

Downloads fail in ways that leave a file behind: a login page, a pointer of Git LFS, a
part of the file. Weights of other frameworks look like those that can be read. Each is
named, with what to do next. Names of files decide only where contents cannot.
"""

import bz2
import lzma
import re
import zlib
from collections.abc import Collection

from gan_jax.storage.arrays import AGAIN, UnsafeFileError, max_unpacked_bytes

IMPORTED = (
  'give weights of BigGAN-PyTorch, of Hugging Face BigGAN-deep or of NVIDIA ProGAN or '
  'StyleGAN (v1)'
)

# First bytes -> what such a file is.
_SIGNATURES = (
  (b'\x89HDF\r\n\x1a\n', 'is an HDF5 file, such as Keras weights'),
  (b'GGUF', 'is a GGUF file of a language model'),
  (b'\x93NUMPY', 'is a single array (.npy), which has no names'),
  (b'\x89PNG\r\n', 'is a PNG image'),
  (b'\xff\xd8\xff', 'is a JPEG image'),
  (b'GIF8', 'is a GIF image'),
  (b'%PDF-', 'is a PDF document'),
  (b'\x08\x01\x12', 'is a TensorFlow SavedModel'),
)
_ARCHIVES = (
  (b'Rar!\x1a\x07', 'a RAR archive'),
  (b"7z\xbc\xaf'\x1c", 'a 7z archive'),
  (b'\x28\xb5\x2f\xfd', 'compressed with zstd'),
)
# Names of files whose first bytes do not tell what they are.
_NAMES = (
  (r'\.index|\.meta|\.data-\d{5}-of-\d{5}', 'is a part of a TensorFlow checkpoint'),
  (r'\.pb|\.pbtxt', 'is a TensorFlow graph'),
  (r'\.h5|\.hdf5|\.keras', 'is a file of Keras weights'),
  (r'\.onnx', 'is an ONNX model'),
  (r'\.tflite', 'is a TensorFlow Lite model'),
  (r'\.msgpack', 'is a MessagePack file, such as Flax weights'),
)  # fmt: skip
_TF_INDEX_END = bytes.fromhex('57fb808b247547db')
_UNPACKERS = (
  (b'\x1f\x8b', lambda: zlib.decompressobj(31)),
  (b'BZh', bz2.BZ2Decompressor),
  (b'\xfd7zXZ\x00', lzma.LZMADecompressor),
)


def unpacked(data: memoryview) -> memoryview:
  """The contents of a file compressed with gzip, bzip2 or xz; others as they are.

  Raises:
    UnsafeFileError: the contents are incomplete, or larger than a file may unpack to.
  """
  for signature, make in _UNPACKERS:
    if data[: len(signature)] != signature:
      continue
    limit, unpacker = max_unpacked_bytes(data), make()
    contents = unpacker.decompress(data, limit + 1)
    if len(contents) > limit:
      raise UnsafeFileError('would unpack to more than 20 times its size')
    if not unpacker.eof:
      raise UnsafeFileError(f'is compressed and ends early, {AGAIN}')
    return memoryview(contents)
  return data


def refuse_other_kinds(data: memoryview, name: str) -> None:
  """Names what a file is that cannot hold weights in a format that can be read.

  Args:
    name: name of the file, without folders.

  Raises:
    UnsafeFileError: a failed download, a file of another framework, an archive, ...
  """
  head = bytes(data[:4096])
  if not head:
    raise UnsafeFileError(f'is empty: the download failed, {AGAIN}')
  if not any(head):
    raise UnsafeFileError(f'begins with zeros: the download did not end, {AGAIN}')
  if head[:2] == b'PK' or head[0] == 0x80 or is_safetensors(data):
    return
  reason = _pointer(head) or _markup(head) or _text(head, data) or _binary(head, data)
  named = (what for pattern, what in _NAMES if re.search(f'(?:{pattern})$', name, re.I))
  if reason is None and (what := next(named, None)):
    reason = f'{what}: {IMPORTED}'
  if reason:
    raise UnsafeFileError(reason)


def is_safetensors(data: memoryview) -> bool:
  """Whether a file begins as .safetensors do; it may be incomplete."""
  return data[8:9] == b'{' and data[5:8] == b'\0\0\0'


def refuse_other_zips(members: Collection[str]) -> None:
  """Names what a zip file is that torch.save and numpy.savez have not written.

  Raises:
    UnsafeFileError: always.
  """
  folders = {name.partition('/')[2] for name in members}
  if 'constants.pkl' in folders:
    raise UnsafeFileError(
      'is a TorchScript program: save the state_dict() of the network instead'
    )
  if any(name.endswith('.weights.h5') for name in members):
    raise UnsafeFileError(f'is a Keras model: {IMPORTED}')
  suffixes = ('.pth', '.pt', '.pkl', '.bin', '.npz', '.safetensors', '.ckpt')
  weights = [name for name in members if name.lower().endswith(suffixes)]
  if weights:
    raise UnsafeFileError(
      f'is a zip archive with {", ".join(weights[:3])[:200]}: unpack it and give the '
      'file or folder in it'
    )
  raise UnsafeFileError(
    'is a zip file that neither torch.save nor numpy.savez has written'
  )


def _pointer(head: bytes) -> str | None:
  """What a small text is that stands for a large file."""
  if head.startswith(b'version https://git-lfs'):
    size = re.search(rb'\nsize (\d{1,15})\n', head)
    of_size = f' of {_format_size(int(size[1]))}' if size else ''
    return (
      f'is a Git LFS pointer to a file{of_size}, not the file: run `git lfs pull` in '
      'its folder (after `git lfs install`), or download the file itself'
    )
  if b'/annex/objects/' in head[:200]:
    return 'is a git-annex pointer, not the file: run `git annex get` in its folder'
  return None


def _format_size(size: int) -> str:
  for unit, scale in (('GB', 1e9), ('MB', 1e6), ('kB', 1e3)):
    if size >= scale:
      return f'{size / scale:.3g} {unit}'
  return f'{size} bytes'


def _markup(head: bytes) -> str | None:
  """What an HTML or XML page is, with its title."""
  encoding = 'utf-16' if head[:2] in (b'\xff\xfe', b'\xfe\xff') else 'utf-8-sig'
  text = head.decode(encoding, 'replace').strip()
  if not re.match(r'<[!?a-zA-Z]', text):
    return None
  found = re.search(r'<title[^>]*>\s*([^<]{1,80})', text, re.IGNORECASE)
  titled = f' ({" ".join(found[1].split())!r})' if found else ''
  if re.match(r'<\?xml|<error', text, re.IGNORECASE) and '<html' not in text.lower():
    return (
      f'is an XML page{titled}, such as the error message of a server, not weights: '
      'check the address and download the file again'
    )
  return f'is a web page{titled}, not weights: {_advice(text)}'


def _advice(text: str) -> str:
  """What to do about the answer of a server that came instead of a file."""
  text = text.lower()
  if 'virus scan' in text or 'quota' in text or 'drive.google' in text:
    return (
      "open the link in a browser and confirm the download, or use the package 'gdown' "
      'for Google Drive'
    )
  if re.search(r'password|log ?in|sign ?in|restricted|gated|unauthori[sz]ed', text):
    return 'the server wants a login, so download the file in a browser or with a token'
  if re.search(r'not found|\b404\b', text):
    return 'there is no such file at that address, so check it and download again'
  return (
    'download the file itself, by its direct link (raw or resolve instead of blob) or '
    'in a browser'
  )


def _text(head: bytes, data: memoryview) -> str | None:
  """What a text is: no format of weights is one."""
  encoding = 'utf-16' if head[:2] in (b'\xff\xfe', b'\xfe\xff') else 'utf-8-sig'
  try:
    text = head.decode(encoding).strip()
  except UnicodeDecodeError as error:
    if encoding != 'utf-8-sig' or error.start < len(head) - 4 or len(head) < 4096:
      return None  # not only a character that the end of `head` has cut
    text = head[: error.start].decode(encoding).strip()
  if not all(c.isprintable() or c in '\t\r\n\f' for c in text):
    return None
  if not text:
    return f'has only spaces: the download failed, {AGAIN}'
  if bytes(data[-2:]).strip().endswith(b'.') and re.match(r'\(|c[\w.]+\n|[}\]]', text):
    return 'is a pickle of protocol 0, which is not read: save it with protocol 2 again'
  if text.startswith(('model_checkpoint_path', 'all_model_checkpoint_paths')):
    return f'is the index of TensorFlow checkpoints: {IMPORTED}'
  return f'is a text that begins {_first_line(text)}, not weights: {_advice(text)}'


def _first_line(text: str) -> str:
  line = text.splitlines()[0]
  return repr(line[:60] + ('...' if len(line) > 60 else ''))


def _binary(head: bytes, data: memoryview) -> str | None:
  """What a binary file of another kind is."""
  for signature, what in _SIGNATURES:
    if head.startswith(signature):
      return f'{what}: {IMPORTED}'
  if head[4:8] == b'TFL3':
    return f'is a TensorFlow Lite model: {IMPORTED}'
  if bytes(data[-8:]) == _TF_INDEX_END:
    return f'is the index of a TensorFlow checkpoint: {IMPORTED}'
  if head[257:262] == b'ustar':
    return 'is a tar archive: unpack it and give the file or folder in it'
  for signature, what in _ARCHIVES:
    if head.startswith(signature):
      return f'is {what}: unpack it and give the file or folder in it'
  return None
