"""What a run reports: log rows, trackers, speed of a window of steps, summary, profile."""
