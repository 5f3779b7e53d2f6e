"""What other libraries' errors say, for a message of ours."""


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its name if it has none."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
