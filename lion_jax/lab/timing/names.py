"""The rules and dtypes that a benchmark knows; imports no jax."""

RULES = ("lion", "lion_bf16_moment", "clipped_lion", "lookahead_lion", "adamw")
DTYPES = ("float32", "bfloat16")
