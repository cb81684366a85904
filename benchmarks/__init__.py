"""Programs that measure: `python -m benchmarks.NAME --json FILE`; see docs/performance.md."""
