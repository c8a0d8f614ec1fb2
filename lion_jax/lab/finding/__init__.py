"""`lion-jax find`: a learning rate to begin with, from one short run."""
