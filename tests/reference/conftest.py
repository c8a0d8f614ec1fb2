"""The recorders are not for pytest to import: they need the original packages."""

collect_ignore_glob = ["record*.py"]
