"""A run becomes a generator of the package: `python bench/experiments/embed.py RUN --name emoji`.

Writes fastgan/models/assets/NAME.safetensors, the averaged networks in float16 (read in float32), and NAME.json beside it: the
command of the run, how long it took, and what is measured of the file, as it is read again, against the data set of the run
and against the other style of emoji. The table of that goes into docs/experiments.md.
"""

import argparse
import json
import shlex
import tempfile
from pathlib import Path

import torch
from page import put
from safetensors.torch import save_file

import fastgan
from fastgan.convert.network import checksum
from fastgan.metrics import images
from fastgan.models import embedded
from fastgan.recipes.packed import pack, read_packed
from fastgan.sampling import load_generator

METRICS = ("fd", "kid", "prdc")
OTHER = "emoji:twitter:base"


def halve(source: Path, target: Path) -> None:
    """The file `source` of `pack` with its floating tensors in float16."""
    found = read_packed(source)
    assert found is not None
    about, tensors = found
    tensors = {name: t.half() if t.is_floating_point() else t for name, t in tensors.items()}
    if bad := [name for name, t in tensors.items() if t.is_floating_point() and not t.isfinite().all()]:
        raise ValueError(f"{bad[0]} is too large for float16")
    text = json.dumps(about)
    save_file(tensors, target, metadata={"fastgan": text, "sha256": checksum(text, tensors)})
    target.chmod(0o644)


def parts(count: int, size: int = 64) -> list[list[int]]:
    return [list(range(i, min(i + size, count))) for i in range(0, count, size)]


def write_table(found: dict) -> None:
    """What `describe` found, in the page."""
    lines = [f"| {found['samples']} samples against | {' | '.join(next(iter(found['measured'].values())))} |\n"]
    lines.append(f"|{'---|' * (1 + lines[0].count(' | '))}\n")
    for data, values in found["measured"].items():
        lines.append(f"| {data} | {' | '.join(f'{value:.4g}' for value in values.values())} |\n")
    about = f"{found['images']:,} images, {found['minutes']} minutes by the clock, {found['weights'] / 1e6:.2f} million weights"
    text = f"```bash\n{found['command']}\n```\n\nThat is {about}.\n\n{''.join(lines)}"
    put(__file__, text)


def describe(run: fastgan.Run, file: Path, command: str, samples: int) -> dict:
    recipe, networks = load_generator(file)
    facts, step = vars(run.saved.run), (read_packed(file) or [{}])[0]["step"]
    seconds = [row["seconds"] for row in run.metrics if row["step"] <= step][-1]
    measured = {}
    extractor = images.load_extractor()
    with torch.no_grad():
        fake = images.collect_drawn(extractor, (recipe.sample(networks, part) for part in parts(samples)))
    for data in (facts["data"], OTHER):
        real = images.dataset_features(extractor, fastgan.data.load(data))
        found = images.measure(real, fake, extractor.name, METRICS)
        measured[data] = {name: round(value, 5) for name, value in found.items()}
    return {
        "command": command,
        "steps": step,
        "minutes": round(seconds / 60, 1),
        "images": step * run.saved.config.batch_size,
        "weights": sum(p.numel() for network in networks.values() for p in network.parameters()),
        "samples": samples,
        "measured": measured,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--name", default="emoji")
    parser.add_argument("--command", required=True, help="the line that trained the run")
    parser.add_argument("--samples", type=int, default=2000)
    args = parser.parse_args()
    fastgan.tune_cpu_allocator()
    torch.set_num_threads(1)
    file = embedded.ASSETS / f"{args.name}.safetensors"
    file.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole.safetensors"
        pack(args.run, whole)
        halve(whole, file)
    found = describe(fastgan.Run(args.run, device="cpu"), file, shlex.join(shlex.split(args.command)), args.samples)
    file.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    write_table(found)
    print(file, file.stat().st_size, json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
