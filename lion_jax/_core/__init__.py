"""Shared code: it imports no other package of lion_jax, and all others may import it."""
