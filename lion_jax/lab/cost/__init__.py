"""What a pod would run, stored and sent, counted in its compiled program: needs `pods`."""

from lion_jax.lab.cost.figures import PodCost as PodCost
from lion_jax.lab.cost.pods import pod_cost as pod_cost
