"""One side of the benchmark of uploads, in a process of its own: `python -m tests.benchmarks.upload_side SIDE ...`."""

import sys

if (
    __name__ == "__main__"
):  # worker processes import this file too, and shall not pay for what only the parent needs
    from tests.benchmarks import measure
    from tests.benchmarks.upload_sides import SIDES

    measure.report(lambda: SIDES[sys.argv[1]](*sys.argv[2:]))
