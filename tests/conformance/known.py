"""What is known not to work yet: (name of the case, columns, what would make it work)."""

_DEVICE_OUTPUT = (
    "what kernels print stays at the worker until device output travels with the session"
)

KNOWN: list[tuple[str, str, str]] = [
    ("device_printf", "pool pool-sync", _DEVICE_OUTPUT),
    ("device_assert", "pool pool-sync", _DEVICE_OUTPUT),
]
