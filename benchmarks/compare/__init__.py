"""Comparisons with the tools that people use, on data of installable packages."""
