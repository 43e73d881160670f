"""Files of other libraries, made by them and imported here: `python -m benchmarks.imports`."""
