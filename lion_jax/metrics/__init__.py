"""Metrics of an optimizer, readable from its state."""

from lion_jax.metrics.reading import read_metrics as read_metrics
from lion_jax.metrics.recording import MetricsState as MetricsState
from lion_jax.metrics.recording import with_metrics as with_metrics
