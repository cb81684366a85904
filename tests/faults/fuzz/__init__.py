"""Bad input, systematically: damaged and made-up inputs for every reader, and a judge of outcomes.

`python -m tests.faults.fuzz` runs it at length, `tests/faults/test_fuzz.py` for some seconds.
"""
