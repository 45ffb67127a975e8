"""The expression form of a reference, its skeletons and its schedules."""
