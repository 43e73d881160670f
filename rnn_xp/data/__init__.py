"""Data on the host: series, dates, windows, files of windows, scalers and bundled series."""
