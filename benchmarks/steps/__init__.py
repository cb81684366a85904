"""Training steps compared with peers and with a roof, profiled, or timed to an accuracy."""
