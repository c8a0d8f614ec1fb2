"""Shared code: it imports no other package of lion_jax, and all others may import it."""

from lion_jax._versions import check_versions as _check_versions

_check_versions()
