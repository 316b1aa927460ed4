"""Stand-ins for other projects' packages: a few files each, written from their public interfaces, in a folder of their own."""

import sys
import textwrap

import pytest


@pytest.fixture
def project(tmp_path, monkeypatch):
    """project({"package/module.py": source, ...}) makes the files importable until the test is over."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(files: dict[str, str]) -> None:
        for name, source in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(source))

    yield write
    tops = {name.partition(".")[0] for name in set(sys.modules) - before} - {name.partition(".")[0] for name in before}
    for name in [name for name in sys.modules if name.partition(".")[0] in tops]:
        del sys.modules[name]
