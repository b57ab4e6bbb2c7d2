"""Label tables as spreadsheets and other tools write them, or refused by name."""

import json

import pytest

from gan_jax import UserError
from gan_jax.data.label_tables import read_label_table

PLAIN = {'0.png': 'red', '1.png': 'gr\u00fcn'}


@pytest.mark.parametrize(
  ('text', 'encoding', 'form'),
  [
    ('file,label\n0.png,red\n1.png,gr\u00fcn\n', 'utf-8', "columns 'file' and 'label'"),
    ('file;label\r\n0.png;red\r\n1.png;gr\u00fcn\r\n', 'utf-8', "separated by ';'"),
    ('sep=;\r\nfile;label\r\n0.png;red\r\n1.png;gr\u00fcn\r\n', 'utf-8-sig', "by ';'"),
    ('file\tlabel\n0.png\tred\n1.png\tgr\u00fcn\n', 'utf-16', "by '\\\\t', UTF-16"),
    ('file,label\n0.png,red\n1.png,gr\u00fcn\n', 'utf-16-le', 'UTF-16'),
    ('file,label\r0.png,red\r1.png,gr\u00fcn\r', 'utf-16-be', 'UTF-16'),
    ('file,label\n0.png,red\n1.png,gr\u00fcn\n', 'cp1252', 'read as Windows-1252'),
    ('file, label\n0.png, red\n1.png, gr\u00fcn\n', 'utf-8', "'file' and 'label'"),
    ('"file", "label"\n"0.png", "red"\n"1.png", "gr\u00fcn"\n', 'utf-8', ''),
    ('file,label\n0.png, "red"\n1.png, "gru\u0308n"\n', 'utf-8', ''),
    ('\n\nLabel ,n,FILE,,\nred,1,0.png,,\ngr\u00fcn,2,1.png,,\n,,,,\n\n', 'utf-8', ''),
    (
      'id,file_name,label\n7,0.png,red\n8,1.png,gr\u00fcn\n',
      'utf-8',
      "'file_name' and",
    ),
    ('File Name,y\n0.png,red\n1.png,gr\u00fcn\n', 'utf-8', "'File Name' and 'y'"),
    ('image_path|target\n0.png|red\n1.png|gr\u00fcn\n', 'utf-8', "by '|'"),
    ('img,category\n0.png,red\n1.png,gr\u00fcn\n', 'utf-8', "'img' and 'category'"),
    ('id,class\n0.png,red\n1.png,gr\u00fcn\n', 'utf-8', "'id' and 'class'"),
    (
      'path,label_name\n0.png,red\n1.png,gr\u00fcn\n',
      'utf-8',
      "'path' and 'label_name'",
    ),
  ],
)
def test_tables_of_spreadsheets(text, encoding, form):
  table = read_label_table('labels.csv', text.encode(encoding))
  assert dict(table.labels) == PLAIN and form.replace('\\\\', '\\') in table.form


@pytest.mark.parametrize(
  ('name', 'content', 'labels'),
  [
    ('dataset.json', {'labels': [['a.png', 3], ['b/c.png', 0]]}, {'a.png': '3'}),
    ('dataset.json', {'labels': {'a.png': 3, 'b/c.png': 0.0}}, {'b/c.png': '0.0'}),
    ('Labels.json', {'labels': [['a.png', 'cat'], ['b', 'dog']]}, {'b': 'dog'}),
    ('dataset.json', {'labels': None}, None),
    ('metadata.jsonl', {'file_name': 'a.png', 'label': 2, 'text': 'x'}, {'a.png': '2'}),
    ('labels.jsonl', {'image': 'a.png', 'class': ' x'}, {'a.png': ' x'}),
    ('labels.jsonl', {'id': 7, 'class': True}, {'7': 'true'}),
  ],
)
def test_json_of_other_tools(name, content, labels):
  table = read_label_table(name, json.dumps(content).encode())
  assert (table.labels is None) == (labels is None)
  assert not labels or labels.items() <= table.labels.items()


def test_captions_are_no_label_table():
  line = b'{"file_name": "a.png", "text": "a cat"}\n'
  assert read_label_table('train/metadata.jsonl', line) is None
  assert read_label_table('metadata.csv', b'file_name,text\na.png,a cat\n') is None


@pytest.mark.parametrize(
  ('name', 'content', 'message'),
  [
    ('labels.csv', b'0.png,red\n', "its first line has '0.png', 'red', and a table n"),
    ('labels.csv', b'file,colour\na,b\n', "first line has 'file', 'colour', and"),
    (
      'labels.csv',
      b'path,filename,label\n',
      "could be the file: 'path', 'filename'; c",
    ),
    ('labels.csv', b'file,class,y\na,b,c\n', "could be the label: 'class', 'y'; call "),
    (
      'labels.csv',
      b'file,label\na.png,red, dark\n',
      '1 has 3 cells, .* 2 columns: quo',
    ),
    ('labels.csv', b'file,label\n"a.png,red\n', 'labels.csv cannot be read'),
    ('labels.csv', b'', 'labels.csv is empty: a table needs the columns file and'),
    ('labels.csv', b'file,label\n ,red\n', "entry 1 has no 'file' and 'label'"),
    (
      'labels.csv',
      'file,label\na,\u043a\u043e\u0442'.encode('cp1251'),
      'no text in UTF-8, UTF-16 or Win',
    ),
    (
      'labels.csv',
      'file,label\na,b\u732b\u72d7'.encode('gbk'),
      'no text in UTF-8, UTF-16',
    ),
    ('labels.csv', b'file,label\na,\x81\n', 'no text in UTF-8, UTF-16 or Windows-1252'),
    (
      'dataset.json',
      b'{"images": []}',
      "has the keys 'images', but no 'labels': the f",
    ),
    ('labels.csv', 'file,label\na,gr\u00fcn'.encode('mac_roman'), 'no text in UTF-8, '),
    ('labels.csv', 'file,label\na,gr\u00fcn'.encode('cp850'), 'no text in UTF-8, UTF'),
    ('labels.csv', 'file,label\na,b\n'.encode('utf-32'), 'no text in UTF-8, UTF-16 o'),
    ('dataset.json', b'[1]', "has no object, but no 'labels'"),
    ('dataset.json', b'{"labels": 3}', "'labels' is a int"),
    (
      'dataset.json',
      b'{"labels": ["a.png"]}',
      'entry 1 of \'labels\' is "a.png": the f',
    ),
    (
      'dataset.json',
      b'{"labels": [["a.png", [0, "x"]]]}',
      r'label \[0, "x"\]: a class, a number or a name',
    ),
    ('dataset.json', b'{"labels": [["a.png", null]]}', "entry 1 has no 'file' and"),
    ('dataset.json', b'{"labels": {"a": 1, "a": 2}}', "key 'a' occurs twice"),
    ('dataset.json', b'{"labels"', 'dataset.json cannot be read'),
    ('labels.jsonl', b'{"file": "a", "label": NaN}', r'1 \(a\) has an empty label'),
    ('labels.jsonl', b'[1, 2]\n', "entry 1 has no 'file' and 'label'"),
  ],
)
def test_tables_are_refused_with_what_was_found(name, content, message):
  with pytest.raises(UserError, match=message):
    read_label_table(name, content)
