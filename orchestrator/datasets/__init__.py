"""From a folder of labelled images to a dataset version.

scan      one walk, `stat` only: which datasets, splits, classes and files there are
check     every file read once, hashed and fully decoded, in worker processes
split     which image is for training and which for measuring
plan      what differs from the version that is there: a new manifest, and what must be packed
pack      reproducible tar files, named by their content
"""
