"""What a request that cannot be met raises."""


class RequestError(ValueError):
    """A comparison or benchmark that cannot be made as asked; the message says what is possible."""
