"""docs/metrics.md: every metric, and the values of every protocol."""

import re
from pathlib import Path

import pytest

from gan_jax.evaluation.metrics import METRIC_NAMES
from gan_jax.evaluation.protocol import PROTOCOLS, EvaluationProtocol

PAGE = Path(__file__).parents[2] / 'docs' / 'metrics.md'
WORDS = {  # how the page writes values
  ('ema', True): 'yes',
  ('is_seed', None): 'in order',
  ('num', 0): 'as many as real ones, at most 50,000',
  ('ppl_samples', 0): 'as `num`',
  ('psi', 1.0): '1',
  ('separability_images', 0): 'as `num`',
  ('reals', 0): 'all',
  ('truncation', float('inf')): 'none',
}


@pytest.fixture(scope='module')
def tables():
  """The tables by the first cell of their headers: rows of cells."""
  found = {}
  for table in re.findall(r'(?:^\|.*\n)+', PAGE.read_text(), re.MULTILINE):
    rows = [[c.strip() for c in x.strip('|').split('|')] for x in table.splitlines()]
    found[rows[0][0]] = [rows[0], *rows[2:]]
  return found


def test_every_metric_has_a_row(tables):
  header, *rows = tables['score']
  names = [re.fullmatch('`(.*)`', row[0])[1] for row in rows]
  assert len(names) == len({*names}) and {*names} == {*METRIC_NAMES}
  assert all(len(row) == len(header) and all(row) for row in rows)


def test_the_table_holds_the_values_of_the_protocols(tables):
  header, *rows = tables['setting (flag)']
  assert header == ['setting (flag)', 'default', *(f'`{name}`' for name in PROTOCOLS)]
  default, page, code = EvaluationProtocol(), {}, {}
  fields = sorted({field for settings in PROTOCOLS.values() for field in settings})
  write = lambda field, value: WORDS.get((field, value), str(value))
  for row in rows:
    field = re.match('`(.*?)`', row[0])[1]
    page[field] = row[1:]
  for field in fields:
    code[field] = [
      write(field, getattr(default, field)),
      *(
        write(field, settings[field]) if field in settings else ''
        for settings in PROTOCOLS.values()
      ),
    ]
  assert page == code
