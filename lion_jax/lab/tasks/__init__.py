"""What is trained: tasks of one's own and those that come with the lab."""
