"""The recorder is not for pytest to import: it needs the original packages."""

collect_ignore = ["record.py"]
