"""What a run says of itself: rows, windows, summary, profile."""
