"""Proposers: parents and evidence in, candidates out."""
