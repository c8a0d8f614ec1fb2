"""`lion-jax cost`: a step's bytes on a TPU pod, stored, moved and sent, counted without one."""
