"""The tasks that rules are trained on: your own, and those that come with the lab."""
