"""The list of keys: each with its value and an explanation."""

from gan_jax.config import load_config
from gan_jax.config.listing import list_keys
from gan_jax.config.overrides import split_overrides


def test_every_key_is_listed_with_an_explanation_and_can_be_set_as_listed():
  for name in ('biggan_emoji', 'progan_emoji', 'stylegan_lsun'):
    config = load_config(name)
    lines = list_keys(config).splitlines()[2:]
    flags = []
    for line in lines:
      entry, _, text = line.partition('  # ')
      key, _, value = entry[2:].partition(' =')
      assert len(text) > 9, line
      flags.append(f'--config.{key}={value.strip().strip(chr(39))}')
    assert len(flags) == sum(map(len, config.to_dict().values()))
    assert load_config(name, split_overrides(flags)[1]) == config


def test_marks_say_what_differs_from_the_default_and_what_the_command_line_sets():
  config = load_config('biggan_emoji', [('train.accum', '2')])
  lines = {
    line[2:].split()[0]: line
    for line in list_keys(config, ['train.accum']).splitlines()
  }
  assert lines['train.accum'].startswith('> train.accum')
  assert lines['schedule.ema'].startswith('* schedule.ema')
  assert lines['model.channels'].startswith('  model.channels')
  assert lines['model.g_widths'].split()[3] == '6,4,2,1'
