"""Benchmarks: `python -m benchmarks.NAME`, with `--quick` for a minute's version and `--json` for machines."""
