"""What everything stands on: errors, files, locks, screen, compilation, memory."""
