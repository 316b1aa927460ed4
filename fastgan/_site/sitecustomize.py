"""Python runs this at its start where this folder is on PYTHONPATH: `python -m fastgan.run --hook` prints the folder.

With FASTGAN_PATCH=1, packages that fastgan knows are patched as they are imported; with FASTGAN_PATCH=accelerate networks are
accelerated too. Another sitecustomize further along the path runs as well.
"""

import importlib.machinery
import importlib.util
import os
import sys

here = os.path.dirname(os.path.abspath(__file__))
if os.environ.get("FASTGAN_PATCH"):
    root = os.path.dirname(os.path.dirname(here))
    if root not in sys.path:
        sys.path.append(root)
    from fastgan import import_hook

    import_hook.install(os.environ["FASTGAN_PATCH"])

elsewhere = [path for path in sys.path if os.path.abspath(path) != here]
spec = importlib.machinery.PathFinder.find_spec("sitecustomize", elsewhere)
if spec is not None:
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
