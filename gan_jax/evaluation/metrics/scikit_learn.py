"""What the metrics take from scikit-learn, an optional package (extra `scores`)."""

import contextlib
import importlib.util
import warnings
from collections.abc import Iterator

from gan_jax import UserError


def require_scikit_learn(metric: str) -> None:
  """Raises a UserError that names the metric if scikit-learn is not installed."""
  if importlib.util.find_spec('sklearn') is None:
    raise UserError(f"{metric} needs scikit-learn: pip install 'gan_jax[scores]'.")


@contextlib.contextmanager
def without_convergence_warnings() -> Iterator[None]:
  """Silences warnings that a fit has not converged or found too few clusters.

  The original protocols take what the fit returns then.
  """
  from sklearn.exceptions import ConvergenceWarning

  with warnings.catch_warnings():
    warnings.simplefilter('ignore', ConvergenceWarning)
    yield
