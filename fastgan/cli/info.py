"""fastgan info."""

import sys

from fastgan.fields import docstring


def info(argv: list[str]) -> int:
    """Versions, and what each operation runs on here: fastgan info"""
    if argv:
        known = argv[0] in ("-h", "--help")
        print(docstring(info), file=None if known else sys.stderr)
        return 0 if known else 2
    from fastgan.info import report

    print(report())
    return 0
