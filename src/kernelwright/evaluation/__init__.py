"""The judge: right first, then timed."""
