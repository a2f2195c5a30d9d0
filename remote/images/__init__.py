"""From packs of image files to batches of pixels: decoded once, preprocessed, augmented."""
