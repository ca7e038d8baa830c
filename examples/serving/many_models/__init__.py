"""Many models in one server."""
