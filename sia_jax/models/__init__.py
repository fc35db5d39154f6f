"""The networks: pure functions on arrays."""
