"""Which test programs also run with their two devices on two servers."""

TWO_SERVERS = (
    "device_reset",
    "host_callback",
    "managed_memory",
    "separate_compilation",
    "shared_memory_with_host",
    "streams_events",
    "symbols",
    "threads_and_streams",
    "two_devices",
    "two_devices_in_order",
)
"""Those that use both devices, and some that must not notice."""
