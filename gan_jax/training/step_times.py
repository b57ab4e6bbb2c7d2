"""How long a step takes, and how long of it each process waits for data."""

import json

from gan_jax.runtime.distributed import exchange


class StepTimes:
  """Mean times of the steps since the last line of metrics.jsonl.

  Callbacks and compiles are not part of a step. Times are those of the host: while
  steps are computed in the background, they are the times of a step in the long run.
  """

  def __init__(self) -> None:
    self._forget()

  def _forget(self) -> None:
    self._steps, self._seconds, self._waited = 0, 0.0, 0.0

  def add(self, seconds: float, waited: float) -> None:
    """Adds a step that took `seconds`, of which it waited for data for `waited`."""
    self._steps += 1
    self._seconds += seconds
    self._waited += waited

  def next_line(self) -> dict[str, float | list[float | None]]:
    """The means since the last call, and in process 0 those of all processes.

    All processes must call it, but none waits for another.

    Returns:
      step_s and data_wait_s, the largest ones of the processes that are known; with
      several processes also both by process, None where one is not known yet. Empty
      without steps.
    """
    if not self._steps:
      return {}
    own = (self._seconds / self._steps, self._waited / self._steps)
    self._forget()
    means = exchange('step_times', json.dumps([round(x, 6) for x in own]))
    times = [json.loads(text) if text else (None, None) for text in means]
    line: dict[str, float | list[float | None]] = {}
    for name, values in zip(('step_s', 'data_wait_s'), zip(*times), strict=True):
      line[name] = max(x for x in values if x is not None)
      if len(values) > 1:
        line[f'{name}_by_process'] = list(values)
    return line
