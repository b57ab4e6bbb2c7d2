"""The study file, flags, and study.json; all mistakes are named at once."""

import json
import threading

import pytest

from gan_jax import UserError
from gan_jax.study import spec
from tests.study.studies import CONFIG, described

TEN_LINES = """
config = "biggan_digits:tiny"
batches = [8, 16]
lr_rules = ["constant", "sqrt"]
lr_factors = [1, 2]
seeds = 3
images = 320
targets = [0.5, 0.25]
topologies = ["v5e:2x2"]
[set]
train.noise_scale = true
[sweep]
"g_adam.ortho" = [0.0, 1e-4]
model.g_widths = [[4, 2, 1], [2, 2, 1]]
"""


@pytest.fixture
def file(tmp_path):
  (tmp_path / 'x.toml').write_text(TEN_LINES)
  return f'--spec={tmp_path / "x.toml"}'


def test_a_file_of_ten_lines_is_a_study(file, tmp_path):
  study, cells, faults = described(tmp_path / 'a', file)
  assert not faults and study.title == 'a'
  found = study.spec
  assert found.seeds == (0, 1, 2) and found.lr_factors == (1.0, 2.0)
  assert found.set == {'train.noise_scale': 'True'}
  assert found.sweep == {
    'g_adam.ortho': ('0.0', '0.0001'),
    'model.g_widths': ('4,2,1', '2,2,1'),
  }
  # Batch 8 is the config's: both rules have the rates 1 and 2 there.
  assert len(cells) == 3 * 4 * (2 + 4)
  assert all(cell.config.train.noise_scale for cell in cells)
  assert {cell.config.gan.g_widths for cell in cells} == {(4, 2, 1), (2, 2, 1)}


def test_flags_replace_keys_of_the_file_and_the_folder_keeps_all(file, tmp_path):
  folder = tmp_path / 'a'
  flags = (file, '--seeds=4,9', '--sweep=model.remat=False,True')
  study, cells, _ = described(folder, *flags, overrides=[('model.d_ch', '8')])
  assert study.spec.seeds == (4, 9) and study.spec.batches == (8, 16)
  assert {cell.config.gan.d_ch for cell in cells} == {8}
  spec.save_study(study)
  again, same_cells, faults = described(folder)
  assert not faults and again == study and same_cells == cells
  text = (folder / spec.STUDY_FILE).read_bytes()
  spec.save_study(again)
  assert (folder / spec.STUDY_FILE).read_bytes() == text
  more, _, _ = described(folder, '--seeds=5')
  assert more.spec.seeds == (0, 1, 2, 3, 4) and more.base == study.base


def test_many_processes_write_one_study(file, tmp_path):
  study, _, _ = described(tmp_path / 'a', file)
  errors = []

  def save():
    try:
      spec.save_study(study)
    except UserError as error:
      errors.append(error)

  threads = [threading.Thread(target=save) for _ in range(8)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert not errors and [p.name for p in (tmp_path / 'a').iterdir()] == ['study.json']
  assert described(tmp_path / 'a')[0] == study


@pytest.mark.parametrize(
  'text, words',
  [
    ('batchs = [8]', "no key 'batchs' (did you mean 'batches'?)"),
    ('batches = ["8"]', "batches[0] is '8': int is needed"),
    ('batches = [0]', 'study.batches contains 0: entries must be at least 1'),
    ('seeds = [1, 1]', 'seeds contains a value twice: 1,1'),
    ('lr_rules = "square"', "study.lr_rules contains 'square': allowed are constant"),
    ('score = "fdsmall"', "study.score is 'fdsmall' (did you mean 'fd_small'?)"),
    ('targets = [0.0]', 'study.targets of fd_small must be above 0'),
    ('sweep = 3', 'sweep is 3: a table of config keys, [sweep], is needed'),
    ('[sweep]\nmodel.remt = [true]', 'did you mean model.remat?'),
    ('[sweep]\nmodel.remat = [1, 2]', "model.remat is '2': bool is needed"),
    ('[sweep]\nmodel.remat = []', '[sweep] model.remat needs one or several'),
    ('[sweep]\ntrain.seed = [1]', '[sweep] train.seed: a study sets this key by seeds'),
    ('[set]\ntrain.images = 5', '[set] train.images: a study sets this key by images'),
    ('d_steps = 2\n[sweep]\ntrain.d_steps = [1, 2]', 'is there twice, as d_steps too'),
    (
      'batches = [7]\naccum = [1, 2]',
      'batch 7, train.accum=2: schedule.batch=7 does not',
    ),
    ('accum = 3', 'schedule.batch=8 does not divide by 1 devices x train.accum=3'),
  ],
)
def test_mistakes_are_sentences(tmp_path, text, words):
  (tmp_path / 'x.toml').write_text(text)
  _, _, faults = described(tmp_path / 'a', f'--spec={tmp_path / "x.toml"}', CONFIG)
  assert len(set(faults)) == 1 and words in faults[0], faults
  with pytest.raises(UserError):
    spec.refuse(faults)


def test_all_mistakes_are_named_at_once(tmp_path):
  (tmp_path / 'x.toml').write_text(
    'batches = [6, 8]\naccum = [1, 4]\nbudget = 3\n[set]\nmodel.chanels = 3'
  )
  flags = [f'--spec={tmp_path / "x.toml"}', CONFIG, '--images=many']
  _, _, faults = described(tmp_path / 'a', *flags)
  with pytest.raises(UserError) as error:
    spec.refuse([*faults, *faults])
  text = str(error.value)
  assert text.startswith('the study has 4 mistakes, nothing is done:\n')
  for words in ("key 'budget'", '--images', 'model.channels', 'schedule.batch=6'):
    assert text.count(words) == 1, text
  assert not (tmp_path / 'a').exists()


def test_a_study_must_be_described_once(tmp_path):
  with pytest.raises(UserError, match='holds no study yet: give --config'):
    described(tmp_path / 'a')
  (tmp_path / 'x.toml').write_text('seeds = ')
  with pytest.raises(UserError, match='x.toml is not TOML'):
    described(tmp_path / 'a', f'--spec={tmp_path / "x.toml"}', CONFIG)
  with pytest.raises(UserError, match='cannot be read: No such file'):
    described(tmp_path / 'a', f'--spec={tmp_path / "y.toml"}', CONFIG)
  with pytest.raises(UserError, match='biggan_digts'):
    described(tmp_path / 'a', '--config=biggan_digts', '--seeds=0')
  (tmp_path / 'a').mkdir()
  for text in ('{', '[]', json.dumps({'spec': 3})):
    (tmp_path / 'a' / 'study.json').write_text(text)
    with pytest.raises(UserError, match='study.json is corrupted'):
      described(tmp_path / 'a')
