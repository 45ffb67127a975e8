"""Pure arithmetic of bound and floor."""
