"""The public names of `lion_jax.lab`."""

from lion_jax.lab.comparing.report import Comparison as Comparison
from lion_jax.lab.comparing.run import compare as compare
from lion_jax.lab.cost.figures import PodCost as PodCost
from lion_jax.lab.cost.report import PodCosts as PodCosts
from lion_jax.lab.cost.run import cost as cost
from lion_jax.lab.cost.run import pod_cost as pod_cost
from lion_jax.lab.errors import RequestError as RequestError
from lion_jax.lab.finding.report import Finding as Finding
from lion_jax.lab.finding.run import find as find
from lion_jax.lab.progress import Progress as Progress
from lion_jax.lab.report import load as load
from lion_jax.lab.rules.catalogue import RULES as RULES
from lion_jax.lab.rules.rule import Rule as Rule
from lion_jax.lab.sweeping.report import Sweep as Sweep
from lion_jax.lab.sweeping.run import sweep as sweep
from lion_jax.lab.tasks.catalogue import TASKS as TASKS
from lion_jax.lab.tasks.classification import classification as classification
from lion_jax.lab.tasks.data import Data as Data
from lion_jax.lab.tasks.data import split as split
from lion_jax.lab.tasks.models import task_of as task_of
from lion_jax.lab.tasks.task import Metric as Metric
from lion_jax.lab.tasks.task import Task as Task
from lion_jax.lab.timing.report import Benchmark as Benchmark
from lion_jax.lab.timing.run import benchmark as benchmark
from lion_jax.lab.watching.report import Observation as Observation
from lion_jax.lab.watching.run import watch as watch
