"""What a run leaves behind: a model that can be asked, and files that explain themselves."""
