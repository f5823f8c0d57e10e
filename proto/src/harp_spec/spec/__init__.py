"""The reviewed meaning of the API: what the headers do not say, one module per area."""
