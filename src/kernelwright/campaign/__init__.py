"""The loop that joins search and evaluation under a budget."""
