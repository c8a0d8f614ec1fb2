"""What a request that cannot be met raises."""


class RequestError(ValueError):
    """What cannot be compared, tested or timed as asked; the message says what is possible."""
