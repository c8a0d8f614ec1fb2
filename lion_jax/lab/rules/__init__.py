"""How it is trained: rules of one's own and those that come with the lab."""
