"""Comparisons, their pictures and the command line: needs the extra `lab`."""

from lion_jax.lab.comparison import Comparison as Comparison
from lion_jax.lab.comparison import compare as compare
from lion_jax.lab.cost.pods import PodCost as PodCost
from lion_jax.lab.cost.pods import pod_cost as pod_cost
from lion_jax.lab.errors import RequestError as RequestError
from lion_jax.lab.finder import find_learning_rate as find_learning_rate
from lion_jax.lab.finding import Finding as Finding
from lion_jax.lab.report import picture as picture
from lion_jax.lab.report import save as save
from lion_jax.lab.report import table as table
from lion_jax.lab.report import verdict as verdict
from lion_jax.lab.rules import RULES as RULES
from lion_jax.lab.rules import Rule as Rule
from lion_jax.lab.tasks import TASKS as TASKS
from lion_jax.lab.tasks import Task as Task
from lion_jax.lab.watching import Observation as Observation
from lion_jax.lab.watching import watch as watch
