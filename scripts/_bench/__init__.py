"""Helpers of ``bench_packed.py``: timing, what is timed, what it is compared with."""
