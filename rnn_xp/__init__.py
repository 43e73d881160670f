"""Recurrent networks with explicit, proven backpropagation through time on any Array API library."""
