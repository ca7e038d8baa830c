"""Benchmarks: ratios against real peers, measured in one interleaved run; `make bench`."""
