"""Probing what this machine is and can do."""
