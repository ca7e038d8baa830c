"""Models to serve: many at once, one with a handler of your own, one that streams."""
