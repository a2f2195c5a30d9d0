"""What both halves of tlvm know: run spec, run status, events, dataset manifest, layout of the bucket.

Standard library only, Python 3.10. Whatever is read here came from a bucket or a machine and is treated as hostile:
unknown schemas and fields are refused by name, sizes are capped, paths stay inside their folder.
"""
