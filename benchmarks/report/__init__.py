"""Makes docs/benchmarks.md of the results of a run: no number in it is typed by hand."""
