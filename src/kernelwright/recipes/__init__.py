"""Expert kernels for shapes of computation, matched by expression."""
