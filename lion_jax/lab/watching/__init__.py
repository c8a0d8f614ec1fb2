"""`lion-jax watch`: what a rule does, step by step."""
