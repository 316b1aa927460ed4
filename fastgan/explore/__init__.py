"""A trained generator in the browser: `fastgan explore RUN|FILE`.

    from fastgan.explore import Explored, serve

    with serve(Explored.load("runs/stylegan2-emoji")) as url:  # http://127.0.0.1:7860
        ...

What the page shows are strings of HTML that hold their pictures, so nothing of the server's files has an address. The functions
behind its controls are in `drawing` and `pictures`; the page needs gradio (extra `ui`).
"""

from fastgan.explore.drawing import Choice, chosen
from fastgan.explore.explored import Explored
from fastgan.explore.page import build
from fastgan.explore.server import serve

__all__ = ["Choice", "Explored", "build", "chosen", "serve"]
