"""Helpers of ``bench_int8.py``: networks and layers in int8, and what they are compared with."""
