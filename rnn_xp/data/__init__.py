"""Data on the host: series, windows, files of windows, scalers, tables and bundled series."""
