"""Training: state, step, parallel compilation, loop, checkpoints and logs."""
