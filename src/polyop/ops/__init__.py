"""The built-in operators, by family, each with all its rules beside it."""
