"""The winner as an operator."""
