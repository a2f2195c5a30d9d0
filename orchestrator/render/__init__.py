"""What people read: results on stdout, progress on stderr; colours and bars only on a terminal.

Text that came from a machine, a bucket or a file name goes through `text.clean` and never through markup.
"""
