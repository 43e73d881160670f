"""Benchmarks: one folder or module for each subject, with what they measured in `results`."""
