"""Training methods, one Lightning module per file."""
