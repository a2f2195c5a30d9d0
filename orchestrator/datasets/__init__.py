"""From a folder of labelled images to a dataset version.

folder      one walk, `stat` only: which datasets, splits, classes and files there are
checks      every file read once, hashed and fully decoded, in worker processes; what the user should know of them
splits      which image is for training and which for measuring
publishing  what differs from the version that is there: a new manifest, and what must be packed
packs       reproducible tar files, named by their content; made anew and deleted by `gc`
columns     how the rows of a million images are held in memory

few is for rehearsals, samples for `tlvm demo`, tally for whoever counts images.
"""
