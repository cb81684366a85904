"""What a network sees: attention, mistakes, filters, and the sheets that show them."""
