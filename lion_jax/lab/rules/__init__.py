"""Update rules: your own, and those that come with the lab."""
