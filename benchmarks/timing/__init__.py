"""How work is timed, the roofs it is set beside, and the rows that hold the results."""
