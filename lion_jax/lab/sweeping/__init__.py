"""Comparisons over tasks, sizes, batch sizes and lengths, with everything tuned."""
