"""Is each file an image that can be used, and is the dataset one that can be learned from?"""
