"""The cost of a step on a pod, counted in its compiled program: needs the extra `pods`."""

from lion_jax.lab.cost.figures import PodCost as PodCost
from lion_jax.lab.cost.pods import pod_cost as pod_cost
