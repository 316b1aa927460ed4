"""The page on an address: one process, a queue, and a guard before gradio's own.

gradio serves more than the page needs: files by path, addresses that it fetches, a history. The guard lets through what the page
asks for, and says no to the rest.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import tempfile
from collections.abc import Iterator

from fastgan.explore.explored import Explored
from fastgan.explore.page import STYLE, build, theme
from fastgan.explore.pictures import MOST_BYTES

WAITING = 16  # events in the queue; more are refused
MOST_BODY = MOST_BYTES + (1 << 16)  # bytes of a request
LOCAL = ("127.0.0.1", "localhost", "::1")
_PAGES = ("/", "/config", "/theme.css", "/favicon.ico", "/manifest.json")
_API = ("info", "startup-events", "theme.css", "app_id", "upload", "upload_progress", "cancel", "reset")
_UNDER = ("/assets/", "/static/", "/svelte/", "/gradio_api/queue/", "/gradio_api/heartbeat/")
# Nothing from other machines, whatever a script of gradio's asks for.
_POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:;"
    " style-src 'self' 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
)


class Guard:
    """An ASGI application around `app`. Unknown paths are not found, requests too large are refused. So are, of an address on
    this machine, other names and pages of other origins: a page elsewhere could give its own name that address (DNS
    rebinding), or send forms to it."""

    def __init__(self, app, local: bool):
        self.app, self.local = app, local

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        refused = self._refused(scope["path"], dict(scope["headers"]), scope["method"])
        if refused is not None:
            status, text = refused
            await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
            return await send({"type": "http.response.body", "body": text.encode()})

        async def guarded(message):
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", _POLICY.encode())]
            await send(message)

        await self.app(scope, receive, guarded)

    def _refused(self, path: str, headers: dict[bytes, bytes], method: str) -> tuple[int, str] | None:
        """(status, message), or None."""
        host = headers.get(b"host", b"").decode("latin-1")
        origin = headers.get(b"origin", b"").decode("latin-1").rpartition("//")[2]
        name = re.sub(r":\d+$", "", host).strip("[]")
        if self.local and (name not in LOCAL or origin not in ("", host)):
            return 403, "this page is for this machine alone"
        known = path in _PAGES or path.startswith(_UNDER) or path.removeprefix("/gradio_api/").rstrip("/") in _API
        if not known:
            return 404, "there is no such page"
        if method not in ("GET", "HEAD"):
            length = headers.get(b"content-length", b"").decode("latin-1")
            if not length.isdigit():
                return 411, "the request does not say how long it is"
            if int(length) > MOST_BODY:
                return 413, f"expected at most {MOST_BYTES >> 20} MB"
        return None


@contextlib.contextmanager
def serve(explored: Explored, host: str = "127.0.0.1", port: int | None = None, steps: int = 100) -> Iterator[str]:
    """The page, as long as the context lasts; its address. Uploads lie in a temporary folder until then.

    port: None for the first that is free from 7860 on. steps: of a projection. Raises OSError for a host that is no address of
    this machine's, or a port that is taken.
    """
    from starlette.middleware import Middleware

    host = host.strip("[]")  # IPv6, as addresses have it
    _check_address(host, port)
    local = host in LOCAL
    with tempfile.TemporaryDirectory(prefix="fastgan-explore-") as uploads, _settings(uploads):
        page = build(explored, steps)
        page.queue(max_size=WAITING, default_concurrency_limit=1, api_open=False)
        try:
            with _logging_kept():
                _, url, _ = page.launch(
                    server_name=f"[{host}]" if ":" in host else host,
                    server_port=port,
                    prevent_thread_lock=True,
                    quiet=True,
                    share=False,
                    inbrowser=False,
                    show_error=False,
                    max_file_size=MOST_BYTES,
                    allowed_paths=[],
                    footer_links=[],
                    run_history=False,
                    enable_monitoring=False,
                    pwa=False,
                    mcp_server=False,
                    ssr_mode=False,
                    num_workers=0,
                    theme=theme(),
                    css=STYLE,
                    app_kwargs={"middleware": [Middleware(Guard, local=local)]},
                )
            yield url
        finally:
            page.close(verbose=False)  # also of a launch that failed when the server was there already


def _check_address(host: str, port: int | None) -> None:
    """OSError where nothing can listen there; gradio would try a hundred ports, five seconds each."""
    try:
        (family, *_, address), *_ = socket.getaddrinfo(host, port or 0, type=socket.SOCK_STREAM)
        with socket.socket(family, socket.SOCK_STREAM) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(address)
    except (OSError, UnicodeError) as error:
        where = host if port is None else f"{host}, port {port}"
        why = getattr(error, "strerror", None) or error
        raise OSError(f"the page cannot be at {where}: {why}; choose another --host or --port") from error


@contextlib.contextmanager
def _logging_kept() -> Iterator[None]:
    """uvicorn sets up logging for the whole process, which closes every handler there is: files of the program's own log, and by
    absl's, which TensorBoard and Keras bring, what was sys.stderr before somebody replaced it."""
    from uvicorn import Config

    before = Config.configure_logging

    def levels_only(config: Config) -> None:
        config.log_config = None
        before(config)

    Config.configure_logging = levels_only
    try:
        yield
    finally:
        Config.configure_logging = before


@contextlib.contextmanager
def _settings(uploads: str) -> Iterator[None]:
    """gradio reads these from the environment: nothing is reported, and no variable that happens to be set allows more."""
    before = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("GRADIO_")}
    ours = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": uploads}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)
        os.environ.update(before)
