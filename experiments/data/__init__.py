"""Data modules: one data set per file, named as in ``configs/data``."""
