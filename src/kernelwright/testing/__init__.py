"""Public conformance suites and fakes."""
