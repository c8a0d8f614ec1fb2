"""`lion-jax compare`: which rule does best on a task, each at its best."""
