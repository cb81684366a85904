"""Array operations: convolutions, norms, pools and losses, lowered as measurements advise."""
