"""The command, and the report that a training run keeps up to date."""

import pytest

from gan_jax import UserError, report
from gan_jax.report import __main__ as command
from tests.report.pages import page_data


def test_several_runs_are_compared_on_one_page(workdir, tmp_path, capsys):
  other = tmp_path / 'deeper' / 'a run'
  other.mkdir(parents=True)
  (other / 'config.json').write_text('{"train": {"images": 5}}')
  out = tmp_path / 'both.html'
  command.main([str(workdir), str(other), f'--out={out}'])
  assert str(out) in capsys.readouterr().out
  first, second = page_data(out.read_text())['runs']
  assert second['name'] == 'deeper/a run' and first['name'].endswith('/a run')
  assert first['config']['train.images'] == '1000'
  assert second['config'] == {'train.images': '5'} and second['grids'] == []


def test_a_writer_writes_the_page_and_logs_one_failure(workdir):
  messages = []
  writer = report.ReportWriter(workdir, True, messages.append)
  writer.refresh()
  writer.finish()
  assert page_data((workdir / 'report.html').read_text()) and not messages
  (workdir / 'config.json').unlink()
  writer.finish()
  writer.finish()
  assert len(messages) == 1 and 'is not the folder of a run' in messages[0]


def test_only_one_process_of_a_job_writes(workdir):
  writer = report.ReportWriter(workdir, False, print)
  writer.refresh()
  writer.finish()
  assert not (workdir / 'report.html').exists()


def test_mistakes_of_the_user(tmp_path, workdir):
  with pytest.raises(UserError, match='not the folder of a run'):
    command.main([str(tmp_path / 'none')])
  (tmp_path / 'file').write_text('')
  for out, words in (
    ('file/page.html', 'cannot be written: .*/file is a file'),
    ('page.png', "ends in '.png', but a .html or .htm file"),
    ('', 'is a folder: name a file, such as .*NAME.html'),
  ):
    with pytest.raises(UserError, match=words):
      command.main([str(workdir), f'--out={tmp_path}/{out}'])


def test_paths_from_the_home_folder(workdir, monkeypatch):
  monkeypatch.setenv('HOME', str(workdir.parent))
  command.main(['~/a run', '--out=~/page.html'])
  assert page_data((workdir.parent / 'page.html').read_text())
