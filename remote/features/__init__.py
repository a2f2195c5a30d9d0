"""What a frozen network makes of images, computed once and kept."""
