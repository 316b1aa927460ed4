"""fastgan explore: its address, and what it refuses before a server starts."""

import importlib.util
import threading
import urllib.request

import pytest
from saved_runs import write_run

from fastgan import cli


def refused(capsys, *words) -> str:
    assert cli.main([*map(str, words)]) == 1
    return capsys.readouterr().err


def test_the_page_is_there_until_it_is_stopped(tmp_path, capsys, monkeypatch):
    pytest.importorskip("gradio", reason="gradio is not installed")
    seen = {}

    def stopped(event):
        seen["said"] = capsys.readouterr().out
        seen["url"] = seen["said"].split()[0]
        with urllib.request.urlopen(seen["url"]) as page:
            seen["status"] = page.status
        raise KeyboardInterrupt

    explore = importlib.import_module("fastgan.cli.explore")
    monkeypatch.setattr(explore, "threading", type("Once", (), {"Event": lambda: type("E", (), {"wait": stopped})()}))
    assert cli.main(["explore", str(write_run(tmp_path / "gan")), "--device", "cpu"]) == 130
    assert seen["status"] == 200 and seen["url"].startswith("http://127.0.0.1:")
    assert "everyone" not in seen["said"] and threading.active_count() < 50
    with pytest.raises(OSError):
        urllib.request.urlopen(seen["url"])


def test_gradio_is_named_where_it_is_missing(tmp_path, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gradio" else find(name))
    assert "gradio missing: pip install 'fastgan[ui]'" in refused(capsys, "explore", tmp_path)


def test_what_cannot_be_explored(tmp_path, capsys):
    pytest.importorskip("gradio", reason="gradio is not installed")
    assert "no such file or folder" in refused(capsys, "explore", tmp_path / "nothing")
    assert "--port is 0" in refused(capsys, "explore", tmp_path, "--port", 0)
    run = write_run(tmp_path / "gan")
    (tmp_path / "other.safetensors").write_bytes(b"no")
    assert "other.safetensors" in refused(capsys, "explore", run, "--directions", tmp_path / "other.safetensors")
