"""Explaining draws no pictures here that nobody looks at."""

from pictures import dots as dots
