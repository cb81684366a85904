"""Training: settings and data in, a loop of compiled steps, saving and evaluation on the way."""
