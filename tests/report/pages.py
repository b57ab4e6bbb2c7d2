"""Workdirs and pages, as the report's tests write and read them."""

import json
import re

import numpy as np
from PIL import Image

HOSTILE = '</script><img src=x onerror=alert(1)><!--&'


def write_image(path, side=8, value=0):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.full((side, side, 3), value, np.uint8)).save(path)


def write_lines(path, lines):
  path.write_text(''.join(json.dumps(line) + '\n' for line in lines))


def page_data(text):
  """The JSON data in the HTML of a page."""
  (data,) = re.findall(r'id="report-data">(.*?)</script>', text, re.DOTALL)
  return json.loads(data)
