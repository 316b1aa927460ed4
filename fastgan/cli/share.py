"""fastgan push, fastgan pull."""

from __future__ import annotations

import shlex
import tempfile
from dataclasses import dataclass
from pathlib import Path

from fastgan.cli.options import UsageError, need_extra, parse, purpose


@dataclass(kw_only=True)
class Push:
    run: Path
    """Run folder, one of its checkpoints, .safetensors, as `fastgan convert` made it, or a folder that an earlier push wrote."""
    to: str
    """A new folder to write (./NAME, or a name without a slash), or user/name on huggingface.co."""
    license: str | None = None
    """What others may do with it, as the hub calls it: apache-2.0, mit, cc-by-4.0, other, ..."""
    yes: bool = False
    """Upload. Without it, what would be uploaded is listed, and nothing is."""
    private: bool = False
    """Make a new repository that only you see."""
    recipe: str | None = None
    """As of fastgan sample."""


@dataclass(kw_only=True)
class Pull:
    name: str
    """user/name on huggingface.co."""
    out: Path | None = None
    """The folder to write, new. Default: NAME, here."""
    revision: str | None = None
    """A branch, a tag or a commit. Default: the newest."""
    recipe: str | None = None
    """As of fastgan sample."""


def push(argv: list[str]) -> int:
    """Share a generator with its model card: fastgan push RUN|FILE FOLDER|user/name --license apache-2.0 [--yes] [...]"""
    need_extra()
    from fastgan import sharing
    from fastgan.training.packed import PACKED

    options = parse(Push, argv, "fastgan push", purpose(push))
    remote, shared = sharing.is_repository(options.to), (options.run / PACKED).is_file()
    if not remote:
        if options.yes or options.private:
            word = "--yes" if options.yes else "--private"
            raise UsageError(f"{word} is of an upload, and {options.to} is a folder: name user/name, or leave it out")
        if shared:
            raise UsageError(f"{options.run} is a shared folder already: copy it, or name user/name")
        out = sharing.write(options.run, options.to, license=options.license, recipe=options.recipe)
        _list(out)
        print(
            f"next: read {out}/README.md; fastgan push {shlex.quote(str(out))} user/name lists what would be uploaded"
        )
        return 0
    with tempfile.TemporaryDirectory() as place:
        folder = options.run
        if not shared:
            folder = Path(place) / "files"
            sharing.write(options.run, folder, license=options.license, name=options.to, recipe=options.recipe)
        elif options.license is not None:
            raise UsageError(f"--license: that of a shared folder stands in {folder}/README.md, which you may edit")
        sharing.check(folder)
        _list(folder)
        if not options.yes:
            raise UsageError(f"nothing was uploaded; --yes uploads these files to {options.to} on huggingface.co")
        print(sharing.push(folder, options.to, private=options.private))
    return 0


def _list(folder: Path) -> None:
    from fastgan.sharing.hub import uploaded

    for name in uploaded(folder):
        print(f"{name}: {(folder / name).stat().st_size:,} bytes")


def pull(argv: list[str]) -> int:
    """Fetch a shared generator, of which nothing is executed: fastgan pull user/name [OUT] [--revision REVISION]"""
    need_extra()
    from fastgan import sharing

    options = parse(Pull, _with_out(argv), "fastgan pull", purpose(pull))
    out = sharing.pull(options.name, options.out, revision=options.revision, recipe=options.recipe)
    given = "" if any(out.glob("samples.*")) else " --input FOLDER"  # of what makes nothing of seeds alone
    print(f"{out}: README.md says what it is, and its licence\nnext: fastgan sample {shlex.quote(str(out))}{given}")
    return 0


def _with_out(argv: list[str]) -> list[str]:
    """`argv` with a second word that is no option as --out."""
    if len(argv) > 1 and not argv[0].startswith("-") and not argv[1].startswith("-"):
        return [argv[0], "--out", *argv[1:]]
    return argv
