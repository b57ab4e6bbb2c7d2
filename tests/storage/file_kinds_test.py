"""Files that are no weights are named for what they are, with what to do next."""

import bz2
import gzip
import io
import lzma
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import pytest
import safetensors.numpy

from gan_jax import UserError
from gan_jax.storage import weights

POINTER = b'version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize 324000000\n'
TF_INDEX = bytes(80) + bytes.fromhex('57fb808b247547db')
PERSISTENT = b'torch_utils.persistence\n_reconstruct_persistent_obj\n'
STACK_GLOBAL = (
  b'\x80\x04\x8c\x17torch_utils.persistence\x8c\x1b_reconstruct_persistent_obj\x93.'
)

# name of the file, contents, words of the answer
KINDS = {
  'a page of Google Drive': (
    'stylegan-ffhq.pkl',
    b'<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title>',
    r"is a web page \('Google Drive - Virus scan warning'\), not weights: .*gdown",
  ),
  'a login form': (
    'G.pth',
    b'\n <html>\n<title>\nHi </title><form><input type="password">',
    r"web page \('Hi'\).*login",
  ),
  'a page after a BOM': ('a.npz', '\ufeff<HTML>x'.encode(), 'is a web page, not'),
  'a page in UTF-16': ('a.bin', '<html>é'.encode('utf-16'), 'is a web page, not'),
  'an XML error': ('a.pkl', b"<?xml version='1.0'?><Error>", 'is an XML page'),
  'a refusal in JSON': (
    'a.bin',
    b'{"error":"Invalid username or password."}',
    'Invalid username or password.*login',
  ),
  'a missing page': ('a.bin', b'Entry not found', "'Entry not found', not.*check it"),
  'a Git LFS pointer': (
    'a.bin',
    POINTER % (b'a' * 64),
    'is a Git LFS pointer to a file of 324 MB.*git lfs pull',
  ),
  'a git-annex pointer': (
    'a.pth',
    b'/annex/objects/SHA256E-s1--1.pth\n',
    'git annex get',
  ),
  'nothing': ('a.pkl', b'', 'is empty: the download failed'),
  'zeros': ('a.pth', bytes(5000), 'begins with zeros: the download did not end'),
  'spaces': ('a.pth', b' \n' * 50, 'has only spaces'),
  'Keras': ('a.pkl', b'\x89HDF\r\n\x1a\n' + bytes(99), 'is an HDF5 file'),
  'GGUF': ('model.bin', b'GGUF\x03\0\0\0' + bytes(99), 'is a GGUF file'),
  'an image': ('a.pth', b'\x89PNG\r\n\x1a\n' + bytes(99), 'is a PNG image'),
  'an .npy file': ('a.npz', b'\x93NUMPY\x01\0' + bytes(99), 'single array'),
  'a SavedModel': ('saved_model.pb', b'\x08\x01\x12\x03abc', 'TensorFlow SavedModel'),
  'a graph': ('frozen.pb', b'\x0a\x10\x0a\x01x\x12\xff\0', 'is a TensorFlow graph'),
  'an index': ('a.bin', TF_INDEX, 'is the index of a TensorFlow checkpoint'),
  'data of TensorFlow': (
    'model.ckpt-7.data-00000-of-00001',
    b'\xff\1\2\3' * 30,
    'is a part of a TensorFlow checkpoint',
  ),
  'the list of checkpoints': (
    'checkpoint',
    b'model_checkpoint_path: "model.ckpt-7"\n',
    'is the index of TensorFlow checkpoints',
  ),
  'ONNX': ('g.onnx', b'\x08\x07\x12\x07pytorch\xff\0', 'is an ONNX model'),
  '7z': ('a.pkl', b"7z\xbc\xaf'\x1c" + bytes(50), 'is a 7z archive: unpack it'),
  'StyleGAN3': (
    'stylegan3-t-ffhq-1024x1024.pkl',
    b'\x80\x03}(X\x01\x00\x00\x00Gc' + PERSISTENT + b')Ru.',
    r'StyleGAN2-ADA, StyleGAN3 or EDM\): StyleGAN of version 1 is imported',
  ),
  'StyleGAN2-ADA': ('a.bin', STACK_GLOBAL, 'StyleGAN2-ADA, StyleGAN3 or EDM'),
  'a module of PyTorch': (
    'a.pth',
    b'\x80\x02cmodels\nGenerator\n)\x81.',
    r"names 'models.Generator'.*state_dict\(\)",
  ),
  'protocol 0': ('a.pkl', pickle.dumps({'a': 1}, 0), 'pickle of protocol 0'),
}  # fmt: skip


@pytest.mark.parametrize('kind', KINDS)
def test_other_kinds_are_named(tmp_path, kind):
  name, contents, words = KINDS[kind]
  path = tmp_path / name
  path.write_bytes(contents)
  with pytest.raises(UserError, match=words) as found:
    weights.read_weights(path)
  assert str(found.value).startswith(str(path))
  assert '\n' not in str(found.value)


def zip_file(**members):
  out = io.BytesIO()
  with zipfile.ZipFile(out, 'w') as z:
    for name, contents in members.items():
      z.writestr(name.replace('__', '/'), contents)
  return out.getvalue()


@pytest.mark.parametrize(
  'members, words',
  [
    ({'m__data.pkl': b'', 'm__constants.pkl': b''}, 'is a TorchScript program'),
    ({'BigGAN__G.pth': b'', 'BigGAN__D.pth': b''}, 'zip archive with BigGAN/G.pth, '),
    ({'config.json': b'', 'model.weights.h5': b''}, 'is a Keras model'),
    ({'readme': b''}, 'neither torch.save nor numpy.savez'),
  ],
)
def test_zip_files_of_other_programs_are_named(tmp_path, members, words):
  path = tmp_path / 'a.pth'
  path.write_bytes(zip_file(**members))
  with pytest.raises(UserError, match=words):
    weights.read_weights(path)


def save_as(path, kind, arrays):
  if kind == 'pickle':
    path.write_bytes(pickle.dumps(arrays))
  elif kind == 'npz':
    with path.open('wb') as f:
      np.savez(f, **arrays)
  else:
    safetensors.numpy.save_file(arrays, path)


@pytest.mark.parametrize('kind', ['pickle', 'npz', 'safetensors'])
@pytest.mark.parametrize(
  'compress', [bytes, gzip.compress, bz2.compress, lzma.compress]
)
def test_contents_and_not_names_tell_the_format(tmp_path, rng_seed, kind, compress):
  rng = np.random.default_rng(rng_seed)
  want = {name: rng.standard_normal((3, 4)).astype(np.float32) for name in 'ab'}
  path = tmp_path / str(rng.choice(['a.pth', 'a.pkl', 'a.bin', 'a.npz', 'a', 'a.h5']))
  save_as(path, kind, want)
  path.write_bytes(compress(path.read_bytes()))
  file = weights.read_weights(path)
  assert file.ordered == (kind == 'pickle')
  assert file.tree.keys() == want.keys()
  for name, value in want.items():
    np.testing.assert_array_equal(file.tree[name], value)


@pytest.mark.parametrize('kind', ['pickle', 'npz', 'safetensors'])
@pytest.mark.parametrize('compress', [bytes, gzip.compress])
def test_a_part_of_a_download_ends_early(tmp_path, rng_seed, kind, compress):
  rng = np.random.default_rng(rng_seed)
  path = tmp_path / 'a.pth'
  save_as(path, kind, {name: rng.standard_normal(99) for name in 'abcd'})
  contents = compress(path.read_bytes())
  path.write_bytes(contents[: int(rng.integers(300, len(contents) - 22))])
  with pytest.raises(UserError, match='ends early.*so fetch it again'):
    weights.read_weights(path)


def test_a_compressed_bomb_is_not_unpacked(tmp_path):
  path = tmp_path / 'a.pkl'
  path.write_bytes(gzip.compress(bytes(60 << 20)))
  with pytest.raises(UserError, match='more than 20 times'):
    weights.read_weights(path)


def test_a_compressed_archive_is_named(tmp_path):
  (tmp_path / 'G.pth').write_bytes(b'x')
  with tarfile.open(tmp_path / 'a.tar.gz', 'w:gz') as t:
    t.add(tmp_path / 'G.pth', 'G.pth')
  with pytest.raises(UserError, match='is a tar archive: unpack it'):
    weights.read_weights(tmp_path / 'a.tar.gz')


def test_a_header_that_looks_like_a_tag_is_not_a_page(tmp_path):
  """The first byte of a .safetensors file is a size, which may be that of '<'."""
  header = json_header_of(0x213C)
  assert header.startswith(b'<!')
  (tmp_path / 'a.pth').write_bytes(header + bytes(4))
  assert weights.read_arrays(tmp_path / 'a.pth').keys() == {'a'}


def json_header_of(size):
  header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
  return struct.pack('<Q', size) + header.ljust(size)
