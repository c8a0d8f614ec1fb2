"""`lion-jax watch`: the work of a rule, step by step."""
