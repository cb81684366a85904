"""What renderers are made of: resizing, warping, blending, hashing; alike on host and device."""
