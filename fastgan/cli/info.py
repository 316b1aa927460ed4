"""fastgan info."""


def info(argv: list[str]) -> int:
    """Versions, and what each operation runs on here: fastgan info"""
    if argv:
        print(info.__doc__)
        return 0 if argv[0] in ("-h", "--help") else 2
    from fastgan.info import report

    print(report())
    return 0
