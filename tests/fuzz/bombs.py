"""Checkpoints of some bytes that ask for hours or gigabytes."""

import json
import pickle
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file


def bombs(folder: Path, sizes: dict) -> Iterator[Path]:
    """Small files that ask for much; `sizes` are the arguments of a small StyleGAN2 generator."""
    shared: list = []
    for _ in range(60):
        shared = [shared, shared]
    (folder / "shared.pkl").write_bytes(pickle.dumps(shared))
    (folder / "memo.pkl").write_bytes(b"]r\x00\x87\x93\x03.")
    (folder / "marks.pkl").write_bytes(b"(" * 10**6)
    text = b"X" + struct.pack("<I", 1 << 20) + b"a" * (1 << 20)
    (folder / "encode.pkl").write_bytes(
        b"c_codecs\nencode\nq\x01" + text + b"q\x02(" + b"h\x01h\x02\x85R" * 3000 + b"l."
    )
    (folder / "long.pkl").write_bytes(b"\x80\x04\x8e" + struct.pack("<Q", 1 << 45) + b"x.")
    with zipfile.ZipFile(folder / "deflated.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"N" * (100 << 20))
    tall = torch.zeros(1).expand(10**6, 10**6)
    torch.save({"synthesis.b4.const": tall}, folder / "stride.pt")
    for name, arguments in {
        "wide": dict(sizes, w_dim=10**6),
        "large": dict(sizes, img_resolution=2**20),
        "tall": dict(sizes, img_resolution=2**13, channel_base=2**26),
        "deep": dict(sizes, mapping_kwargs={"num_layers": 10**6}),
        "latent": dict(sizes, z_dim=2**40),
        "half": dict(sizes, num_fp16_res=-(10**9)),
    }.items():
        about = {"model": "stylegan2.generator", "arguments": arguments}
        save_file({"x": torch.zeros(1)}, folder / f"{name}.safetensors", metadata={"fastgan": json.dumps(about)})
        yield folder / f"{name}.safetensors"
    about = '{"model":' + "[" * 10**5
    save_file({"x": torch.zeros(1)}, folder / "nested.safetensors", metadata={"fastgan": about})
    yield folder / "nested.safetensors"
    for name in ("shared.pkl", "memo.pkl", "marks.pkl", "encode.pkl", "long.pkl", "deflated.pt", "stride.pt"):
        yield folder / name
