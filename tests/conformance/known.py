"""What is known not to work yet: (name of the case, columns, what would make it work)."""

KNOWN: list[tuple[str, str, str]] = []
