"""The page over HTTP: what it answers, what it refuses, and that no file of the machine can be read through it."""

import base64
import contextlib
import io
import json
import logging
import os
import re
import socket
import urllib.error
import urllib.request

import numpy as np
import pytest
import torch
from saved_runs import write_run
from uploads import bomb, encoded

pytest.importorskip("gradio", reason="gradio is not installed")
gradio_client = pytest.importorskip("gradio_client")

from fastgan.data.exact import read_exact, write_png  # noqa: E402
from fastgan.editing import Latents  # noqa: E402
from fastgan.explore import Explored, serve  # noqa: E402
from fastgan.media import Image, Signal  # noqa: E402


class Tone:
    medium, sample_columns, sample_options, data, name = Signal, (), (), {"rate": 8000}, "tone"

    def sample(self, networks, seeds):
        return torch.zeros(len(seeds), 1, 800)


class Double:
    scale, data, name = 2, {"channels": 3}, "double"

    def upscale(self, networks, x):
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    torch.manual_seed(1)
    return write_run(tmp_path_factory.mktemp("somewhere") / "tiny", "stylegan2")


@pytest.fixture(scope="module")
def url(run):
    with serve(Explored.load(run), steps=2) as address:
        yield address.rstrip("/")


@pytest.fixture(scope="module")
def client(url):
    return gradio_client.Client(url, verbose=False)


def get(address, data=None, **headers):
    """(status, body)."""
    request = urllib.request.Request(address, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")


def controls(url, **changed):
    """The values of "draw", as the page has them at first."""
    config = json.loads(get(f"{url}/config")[1])
    draw = next(d for d in config["dependencies"] if d["api_name"] == "draw")
    parts = {part["id"]: part for part in config["components"]}
    shown = [parts[i] for i in draw["inputs"] if parts[i]["type"] != "state"]
    return [changed.get(part["props"].get("elem_id"), part["props"].get("value")) for part in shown]


def test_a_slider_changes_the_picture(url, client):
    def drawn(**changed):
        return re.search(
            r'^<figure><img[^>]* src="([^"]+)', client.predict(*controls(url, **changed), api_name="/draw")
        )[1]

    first = drawn()
    assert drawn() == first
    for name, value in (("seed", 3), ("blend", 0.5), ("direction-0", 3.0)):
        assert drawn(**{name: value}) != first
    with pytest.raises(gradio_client.exceptions.AppError, match="seed is 9999999999, expected a whole number"):
        client.predict(*controls(url, seed=9999999999), api_name="/draw")


def test_a_picture_is_projected(client, tmp_path):
    (tmp_path / "x.png").write_bytes(encoded())
    shown = client.predict(gradio_client.handle_file(str(tmp_path / "x.png")), 0, -1, api_name="/project")
    assert "step 2 of 2" in shown and "projected.safetensors" in shown


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("bomb.png", bomb(60_000, 60_000), "too many pixels"),
        ("large.png", bomb(5000, 5000), "5000x5000 pixels"),
        ("text.png", b"hello", "no picture that is read here"),
        ("text.txt", b"hello", "no picture that is read here"),
    ],
)
def test_a_hostile_upload_is_refused(client, tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(gradio_client.exceptions.AppError, match=message):
        client.predict(gradio_client.handle_file(str(tmp_path / name)), 0, -1, api_name="/project")


@pytest.mark.parametrize(
    "place", ["/etc/passwd", "../../../etc/passwd", "http://127.0.0.1:9/x.png", "file:///etc/passwd"]
)
@pytest.mark.parametrize("kind", ["project", "draw"])
def test_a_path_instead_of_an_upload_is_refused(url, client, place, kind):
    """As no client of gradio's would send it."""
    config = json.loads(get(f"{url}/config")[1])
    number = next(d["id"] for d in config["dependencies"] if d["api_name"] == kind)
    file = {"path": place, "meta": {"_type": "gradio.FileData"}, "orig_name": "x.png"}
    values = [file, 0, -1] if kind == "project" else [None, file, *controls(url)[1:]]
    session = f"s{abs(hash((place, kind)))}"
    body = json.dumps({"data": values, "fn_index": number, "session_hash": session}).encode()
    status, _ = get(f"{url}/gradio_api/queue/join", body, **{"Content-Type": "application/json"})
    assert status == 200
    with urllib.request.urlopen(f"{url}/gradio_api/queue/data?session_hash={session}", timeout=30) as stream:
        events = [json.loads(line[5:]) for line in stream if line.startswith(b"data:")]
    (done,) = [event for event in events if event["msg"] == "process_completed"]
    assert not done["success"] and "root:" not in json.dumps(events)


def test_no_file_has_an_address(url, run, client):
    for path in ("/etc/passwd", run / "config.json", __file__, "http://127.0.0.1:9/x"):
        for way in (
            "gradio_api/file=",
            "file=",
            "gradio_api/file/",
            "gradio_api/proxy=",
            "static/",
            "assets/",
            "svelte/",
        ):
            status, body = get(f"{url}/{way}{path}")
            assert status in (403, 404) and "root:" not in body and "recipe" not in body, (way, path)
    for path in ("static/../../../../etc/passwd", "static/%2e%2e/%2e%2e/routes.py", "assets/..%2f..%2f..%2froutes.py"):
        assert get(f"{url}/{path}")[0] in (403, 404)
    for path in (
        "monitoring",
        "docs",
        "openapi.json",
        "gradio_api/runs",
        "gradio_api/vibe-code/",
        "gradio_api/run/draw",
    ):
        assert get(f"{url}/{path}")[0] == 404
    for path in ("", "/config", "/gradio_api/info"):
        status, body = get(url + path)
        assert status == 200 and str(run.parent) not in body


def test_who_may_ask_and_how_much(url):
    assert get(url, Host="evil.example")[0] == 403
    assert get(url, Host="localhost:1")[0] == 200 and get(url, Host="[::1]:7")[0] == 200
    assert get(url, Host="127.0.0.1.evil.example")[0] == 403 and get(url, Host="[")[0] == 403
    assert get(url, Origin="http://evil.example")[0] == 403 and get(url, Origin="null")[0] == 403
    assert get(url, Origin=url)[0] == 200
    much = b"x" * (17 << 20)
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    with contextlib.suppress(urllib.error.URLError):  # the connection may end before all was sent
        assert get(f"{url}/gradio_api/upload", much, **kind)[0] == 413
    with urllib.request.urlopen(url) as answer:
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'self' data: blob:;")


def test_a_class_is_chosen_and_projected_into(tmp_path):
    options = dict(width=4, max_width=4, group_width=2, latent=4, conditional=True)
    images = dict(name="x", resolution=8, channels=3, num_classes=2, class_names=["cats", "dogs"])
    run = write_run(tmp_path / "classes", "r3gan", options=(options, images))
    (tmp_path / "x.png").write_bytes(encoded())
    with serve(Explored.load(run), steps=1) as address:
        client = gradio_client.Client(address, verbose=False)
        said = {
            name: client.predict(gradio_client.handle_file(str(tmp_path / "x.png")), 1, name, api_name="/project")
            for name in (-1, 0, 1)
        }
    kept = {name: base64.b64decode(re.search(r'octet-stream;base64,([^"]+)', shown)[1]) for name, shown in said.items()}
    for name, content in kept.items():
        (tmp_path / "kept.safetensors").write_bytes(content)
        assert Latents.load(tmp_path / "kept.safetensors").labels.tolist() == [1 if name == -1 else name]


def test_addresses(run):
    explored = Explored.load(run)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot be at 127.0.0.1, port {taken}: Address already in use"):
            serve(explored, port=taken).__enter__()
    for host in ("999.1.1.1", "a b", "192.0.2.1", "."):
        with pytest.raises(OSError, match=r"the page cannot be at .*; choose another --host or --port"):
            serve(explored, host).__enter__()
    try:
        with socket.socket(socket.AF_INET6) as other:
            other.bind(("::1", 0))
    except OSError:
        return  # a machine without IPv6
    for host in ("::1", "[::1]"):
        with serve(explored, host) as address:
            assert address.startswith("http://[::1]:") and get(address)[0] == 200
            assert get(address, Host="evil.example")[0] == 403


def test_other_pages(tmp_path):
    (tmp_path / "x.png").write_bytes(encoded())
    with serve(Explored.load(write_run(tmp_path / "text", "mle"))) as address:
        client = gradio_client.Client(address, verbose=False)
        assert len(client.predict(0, 3, 0.5, api_name="/draw").split("\n")) == 3
    explored = Explored.load(write_run(tmp_path / "pairs", "pix2pix"))
    with serve(explored) as address:
        client, file = gradio_client.Client(address, verbose=False), gradio_client.handle_file(str(tmp_path / "x.png"))
        direction = next(iter(explored.recipe.generators))
        assert client.predict(file, direction, api_name="/translate").startswith("<figure><img")
        (tmp_path / "bomb.png").write_bytes(bomb(60_000, 60_000))
        with pytest.raises(gradio_client.exceptions.AppError, match="too many pixels"):
            client.predict(gradio_client.handle_file(str(tmp_path / "bomb.png")), direction, api_name="/translate")
    with serve(Explored("sounds", Signal, Tone(), {})) as address:
        assert "<audio controls" in gradio_client.Client(address, verbose=False).predict(4, api_name="/draw")


@pytest.mark.parametrize(("channels", "dtype"), [(3, np.uint8), (4, np.uint8), (1, np.uint16), (4, np.uint16)])
def test_an_upscaler_gives_each_pixel_with_alpha_and_16_bits(channels, dtype, tmp_path):
    if dtype == np.uint16:
        pytest.importorskip("imagecodecs")
    given = torch.tensor(np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (channels, 5, 9), dtype=dtype))
    write_png(given, tmp_path / "x.png")
    with serve(Explored("doubled", Image, Double(), {"generator": None})) as address:
        client, file = gradio_client.Client(address, verbose=False), gradio_client.handle_file(str(tmp_path / "x.png"))
        shown = client.predict(file, None, api_name="/translate")
    content = base64.b64decode(re.search(r'<img[^>]* src="data:image/png;base64,([^"]+)', shown)[1])
    found = read_exact(content)
    assert found.dtype == given.dtype and found.shape == (channels, 10, 18)
    assert torch.equal(found.int()[:, ::2, 1::2], given.int())


def test_nothing_is_left(run, monkeypatch):
    monkeypatch.setenv("GRADIO_ALLOWED_PATHS", "/")
    before = dict(os.environ)
    with serve(Explored.load(run)):
        folder = os.environ["GRADIO_TEMP_DIR"]
        assert os.path.isdir(folder) and "GRADIO_ALLOWED_PATHS" not in os.environ
        monkeypatch.setenv("OF_THE_PROGRAM", "1")
    assert not os.path.exists(folder) and dict(os.environ) == before | {"OF_THE_PROGRAM": "1"}


class Closing(logging.StreamHandler):
    """As absl's, which closes what it writes to where that is no longer sys.stderr."""

    def close(self):
        self.stream.close()
        super().close()


def test_the_logging_of_the_program_stays(run, tmp_path):
    handlers = [Closing(io.StringIO()), logging.FileHandler(tmp_path / "program.log", "w")]
    logger = logging.getLogger("a program's")
    for handler in handlers:
        logger.addHandler(handler)
    try:
        with serve(Explored.load(run)) as address:
            assert get(address)[0] == 200
            logger.error("while the page is there")
        logger.error("and after")
        assert not handlers[0].stream.closed
        assert (tmp_path / "program.log").read_text().splitlines() == ["while the page is there", "and after"]
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()


def test_a_server_is_closed_where_the_launch_failed_after_its_start(run, monkeypatch):
    import gradio.networking

    tried = []
    monkeypatch.setattr(gradio.networking, "url_ok", tried.append)
    with pytest.raises(ValueError, match="localhost"), serve(Explored.load(run)):
        pass
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(tried[0], timeout=30)
