"""Training and evaluation from the command line, on top of lowbit, Lightning and Hydra."""
