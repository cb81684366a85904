"""Real processes on the loopback interface, and what can happen to them."""
