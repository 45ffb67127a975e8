"""Declaring, loading and tracing problems; the only package that runs references through torch."""
