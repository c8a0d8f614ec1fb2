"""`lion-jax bench`: a step of each optimizer timed on this machine, side by side."""
