"""The campaign as a page and as tables."""
