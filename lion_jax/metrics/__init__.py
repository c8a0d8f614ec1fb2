"""Metrics of an optimizer, readable from its state."""

from lion_jax.metrics.reading import read_metrics
from lion_jax.metrics.recording import MetricsState, with_metrics

__all__ = [
    "MetricsState",
    "read_metrics",
    "with_metrics",
]
__dir__ = __all__.copy  # TAB offers no more
