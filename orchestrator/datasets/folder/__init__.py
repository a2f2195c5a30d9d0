"""What a folder of the user holds, as the file system tells it."""
