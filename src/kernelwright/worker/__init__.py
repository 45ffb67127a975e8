"""The process that runs one candidate; imports nothing of ours."""
