"""asv benchmarks, made from the registry and from a suite: see docs/asv.md."""
