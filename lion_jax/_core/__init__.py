"""The ground floor: imports no room, and every room may import it."""
