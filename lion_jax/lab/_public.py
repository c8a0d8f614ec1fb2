"""The public names of `lion_jax.lab`."""

from lion_jax.lab.comparing.report import Comparison
from lion_jax.lab.comparing.run import compare
from lion_jax.lab.cost.figures import PodCost
from lion_jax.lab.cost.report import PodCosts
from lion_jax.lab.cost.run import cost, pod_cost
from lion_jax.lab.errors import RequestError
from lion_jax.lab.finding.report import Finding
from lion_jax.lab.finding.run import find
from lion_jax.lab.progress import Progress
from lion_jax.lab.report import load
from lion_jax.lab.rules.catalogue import RULES
from lion_jax.lab.rules.rule import Rule
from lion_jax.lab.sweeping.report import Sweep
from lion_jax.lab.sweeping.run import sweep
from lion_jax.lab.tasks.catalogue import TASKS
from lion_jax.lab.tasks.classification import classification
from lion_jax.lab.tasks.data import Data, split
from lion_jax.lab.tasks.models import task_of
from lion_jax.lab.tasks.task import Metric, Task
from lion_jax.lab.timing.report import Benchmark
from lion_jax.lab.timing.run import benchmark
from lion_jax.lab.watching.report import Observation
from lion_jax.lab.watching.run import watch

__all__ = [
    "RULES",
    "TASKS",
    "Benchmark",
    "Comparison",
    "Data",
    "Finding",
    "Metric",
    "Observation",
    "PodCost",
    "PodCosts",
    "Progress",
    "RequestError",
    "Rule",
    "Sweep",
    "Task",
    "benchmark",
    "classification",
    "compare",
    "cost",
    "find",
    "load",
    "pod_cost",
    "split",
    "sweep",
    "task_of",
    "watch",
]
