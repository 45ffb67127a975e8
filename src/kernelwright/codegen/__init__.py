"""Generates kernel sources from the expression form."""
