"""Mounted object stores are found by their program; other file systems are not."""

from pathlib import Path

import pytest

from gan_jax.storage.mounts import find_mount, mount_warning, read_mounts

MOUNTS = r"""22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:43 / /mnt/gcs rw,nosuid,nodev shared:14 - fuse.gcsfuse my-bucket rw,user_id=0
24 22 0:44 / /mnt/s3fs rw - fuse.s3fs s3fs rw,user_id=0
25 22 0:45 / /mnt/my\040goofys rw - fuse my-bucket rw
26 22 0:46 / /mnt/rclone rw - fuse.rclone remote:bucket rw
27 22 0:47 / /mnt/mountpoint rw - fuse mountpoint-s3 rw
28 22 0:48 / /mnt/azure rw - fuse.blobfuse2 blobfuse2 rw
29 22 0:49 / /mnt/ssh rw - fuse.sshfs host:/home rw
30 22 0:50 / /mnt/nfs rw - nfs4 host:/export rw
31 23 254:1 / /mnt/gcs/disk rw - xfs /dev/vdb rw
32 22 0:51 / /mnt/covered rw - fuse.gcsfuse my-bucket rw
33 32 254:2 / /mnt/covered rw - ext4 /dev/vdc rw
a line of another form
"""
URL = {scheme: f'--workdir={scheme}://BUCKET/NAME' for scheme in ('gs', 's3')}


@pytest.fixture
def mountinfo(tmp_path):
  (tmp_path / 'mountinfo').write_text(MOUNTS)
  return tmp_path / 'mountinfo'


@pytest.mark.parametrize(
  'folder, program, urls',
  [
    ('/mnt/gcs/runs/a', 'gcsfuse', [URL['gs']]),
    ('/mnt/gcs', 'gcsfuse', [URL['gs']]),
    ('/mnt/s3fs/a', 's3fs', [URL['s3']]),
    ('/mnt/my goofys/a', 'goofys', [URL['s3']]),
    ('/mnt/rclone/a', 'rclone', [URL['gs'], URL['s3']]),
    ('/mnt/mountpoint/a', 'mountpoint-s3', [URL['s3']]),
    ('/mnt/azure/a', 'blobfuse2', []),
  ],
)
def test_a_mounted_store_is_named_with_what_to_take(mountinfo, folder, program, urls):
  point = f'/mnt/{folder.split("/")[2]}'
  choices = ' or '.join([*urls, 'a folder on a disk'])
  assert mount_warning(Path(folder), mountinfo) == (
    f'--workdir={folder} is in a {program} mount ({point}), where a rename is not '
    f'atomic, and a kill can leave half a file: take {choices}.'
  )


@pytest.mark.parametrize(
  'folder',
  ['/home/a', '/mnt/ssh/a', '/mnt/nfs', '/mnt/gcs/disk/a', '/mnt/gcs2', '/mnt/covered'],
)
def test_other_file_systems_need_no_warning(mountinfo, folder):
  assert mount_warning(Path(folder), mountinfo) == ''


def test_a_link_into_a_mount_is_followed(mountinfo, tmp_path):
  (tmp_path / 'runs').symlink_to('/mnt/gcs/runs')
  assert 'gcsfuse mount' in mount_warning(tmp_path / 'runs' / 'a', mountinfo)


def test_this_machine_is_read(tmp_path):
  assert mount_warning(tmp_path) == '' == mount_warning(tmp_path, tmp_path / 'none')
  mounts = read_mounts(Path('/proc/self/mountinfo').read_text())
  assert find_mount(Path('/proc/self'), mounts).kind == 'proc'
