"""What happens beside the training step, one Lightning callback per file."""
