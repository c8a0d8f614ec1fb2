"""The ground floor: imports no room, and every room may import it."""

from lion_jax._versions import check_versions as _check_versions

_check_versions()
