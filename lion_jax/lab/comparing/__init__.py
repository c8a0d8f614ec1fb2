"""`lion-jax compare`: the best rule for a task, each rule tuned."""
