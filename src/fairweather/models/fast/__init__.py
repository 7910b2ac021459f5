"""Fast backends of the operations that AST is made of."""
