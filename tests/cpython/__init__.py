"""CPython's own tests, run on poolkit."""
