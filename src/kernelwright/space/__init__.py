"""Tunables: declarations in source, constraints, values and neighbours."""
