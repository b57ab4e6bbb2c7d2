"""Arguments of the official training_schedule (ProGAN, StyleGAN) as our schedule."""

from gan_jax.config.schedules import ProgressiveSchedule


def progressive_schedule(kwargs, res, devices):
  """Our schedule of the official arguments.

  Args:
    res: the final resolution.
    devices: number of GPUs, by which the batch is divisible and which may limit it.
  """
  first = kwargs.get('lod_initial_resolution', 4)
  sizes = tuple(first << i for i in range((res // first).bit_length()))
  base, cap = kwargs.get('minibatch_base', 16), kwargs.get('max_minibatch_per_gpu', {})
  batches = []
  for size in sizes:
    batch = _at(kwargs.get('minibatch_dict', {}), size, base)
    batch -= batch % devices
    batches.append(min(batch, _at(cap, size, batch) * devices))

  def rates(side):
    rate = kwargs.get(f'{side}_lrate_base', 1e-3)
    table = kwargs.get(f'{side}_lrate_dict', {})
    return tuple(_at(table, size, rate) for size in sizes)

  return ProgressiveSchedule(
    resolutions=sizes,
    batch=tuple(batches),
    stabilise=int(kwargs.get('lod_training_kimg', 600) * 1000),
    fade=int(kwargs.get('lod_transition_kimg', 600) * 1000),
    g_lr=rates('G'),
    d_lr=rates('D'),
    warmup=int(kwargs.get('lrate_rampup_kimg', 0) * 1000),
  )


def _at(table, size, default):
  """An entry under a number or, as in JSON, its digits."""
  return table.get(size, table.get(str(size), default))
