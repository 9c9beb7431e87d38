"The command line: the one hand-written edge of the library (everything else is exported from nbs/)."


def nbdev_test():
    "`nbdev_test`, as users know it (nbdev 3 spells the command `nbdev-test`)"
    try: from nbdev.test import nbdev_test
    except ImportError as e: raise SystemExit("nbdev is not installed: pip install 'toon2real[dev]'") from e
    return nbdev_test()
