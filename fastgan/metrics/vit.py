"""Features of two published vision transformers, from local files of their weights, through timm (extra `vit`).

dinov2: the class token after the last norm (Oquab et al., "DINOv2", 2023). `fd_dinov2` is its ViT-L/14's, which Stein et al.,
"Exposing flaws of generative model evaluation metrics", 2023, found nearest to people's judgement.
clip, openclip: the projected image embedding (Radford et al., 2021). Files do not tell which they are: OpenAI's networks
(clip) were trained with x sigmoid(1.702 x) in the place of GELU, those of LAION and DataComp (openclip) with GELU.

Nothing is downloaded and no code of a file is run. Not run with the published weights in this project's tests, which have
no network: only the path from file to features is.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from fastgan.metrics.weights import read_tensors_by_name, sha256
from fastgan.untrusted import BadFile

# By width and depth; heads are 64 wide in all of them.
SIZES = {(384, 12): "vits", (768, 12): "vitb", (1024, 24): "vitl"}
_RESOLUTION = 224
_QKV = ("q_proj", "k_proj", "v_proj")


class Family(NamedTuple):
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    networks: dict[str, Any]  # arguments of timm's VisionTransformer
    holds: str  # a tensor by which a file is known


_CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
FAMILIES = {
    "dinov2": Family((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), {"init_values": 1.0}, "blocks.0.ls1.gamma"),
    "clip": Family(*_CLIP, {"pre_norm": True, "act_layer": "quick_gelu"}, "norm_pre.weight"),
    "openclip": Family(*_CLIP, {"pre_norm": True}, "norm_pre.weight"),
}

# Names of CLIP's tensors in its own and open_clip's files, and in those of transformers: what timm calls them.
_NAMES = {
    "visual.": {
        "class_embedding": "cls_token",
        "positional_embedding": "pos_embed",
        "conv1.": "patch_embed.proj.",
        "ln_pre.": "norm_pre.",
        "ln_post.": "norm.",
        "transformer.resblocks.": "blocks.",
        ".ln_1.": ".norm1.",
        ".ln_2.": ".norm2.",
        ".attn.in_proj_": ".attn.qkv.",
        ".attn.out_proj.": ".attn.proj.",
        ".mlp.c_fc.": ".mlp.fc1.",
        ".mlp.c_proj.": ".mlp.fc2.",
    },
    "vision_model.": {
        "embeddings.class_embedding": "cls_token",
        "embeddings.position_embedding.weight": "pos_embed",
        "embeddings.patch_embedding.": "patch_embed.proj.",
        "pre_layrnorm.": "norm_pre.",
        "post_layernorm.": "norm.",
        "encoder.layers.": "blocks.",
        ".layer_norm1.": ".norm1.",
        ".layer_norm2.": ".norm2.",
        ".self_attn.out_proj.": ".attn.proj.",
        ".self_attn.": ".attn.",
    },
}


def _renamed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors by timm's names; those of a text encoder are left out."""
    prefix = next((prefix for prefix in _NAMES if any(name.startswith(prefix) for name in state)), "")
    if not prefix:  # timm's own names, which DINOv2's files have too
        # Without the token that stands for masked patches in training.
        return {name: tensor for name, tensor in state.items() if name != "mask_token"}
    found = {}
    for name, tensor in state.items():
        if not name.startswith(prefix) or name.endswith("position_ids"):
            continue
        name = name.removeprefix(prefix)
        for theirs, ours in _NAMES[prefix].items():
            name = name.replace(theirs, ours)
        found[name] = tensor
    for name in [name for name in found if f".{_QKV[0]}." in name]:
        parts = [found.pop(name.replace(_QKV[0], part), None) for part in _QKV]
        if any(part is None for part in parts):
            raise BadFile(f"{name} is there without those of {' and '.join(_QKV[1:])}")
        found[name.replace(_QKV[0], "qkv")] = torch.cat(parts)
    for name, shape in {"cls_token": (1, 1, -1), "pos_embed": (1, *found["pos_embed"].shape)}.items():
        found[name] = found[name].reshape(shape)
    head = found.pop("proj").mT if "proj" in found else state["visual_projection.weight"]
    return found | {"head.weight": head, "head.bias": head.new_zeros(len(head))}


def _resampled(positions: torch.Tensor, side: int) -> torch.Tensor:
    """[1, 1 + M * M, D] -> [1, 1 + side * side, D]: as DINOv2 does, whose bicubic scale is (side + 0.1) / M."""
    classes, grid = positions[:, :1], positions[:, 1:]
    old = round(grid.shape[1] ** 0.5)
    if old * old != grid.shape[1]:
        raise BadFile(f"pos_embed is of {grid.shape[1]} patches, expected a square number")
    if old == side:
        return positions
    grid = grid.reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, scale_factor=(side + 0.1) / old, mode="bicubic")
    return torch.cat([classes, grid.flatten(2).mT], 1)


class VisionTransformer(nn.Module):
    """images uint8 [N, 1 or 3, H, W] -> features float32 [N, dim] of the network in file `weights`: .safetensors, or a state_dict
    by torch.save, with the names of its publisher, of timm, or (CLIP) of transformers.

    Images are resized to 224x224, bicubic and antialiased, clipped to 0 to 255, and normalised as in training. `name`: dinov2 of
    ViT-L/14, else with the size (dinov2-vits14, clip-vitb32); `sha256` is the file's.

    Raises ImportError where timm is missing, FileNotFoundError if `weights` is, BadFile, a ValueError, where it holds no such
    network.
    """

    resolution, resize, precision = _RESOLUTION, f"bicubic, antialiased, to {_RESOLUTION}x{_RESOLUTION}", "float32"

    def __init__(self, weights: str | Path, family: str):
        super().__init__()
        try:
            import timm
        except ImportError as error:
            raise ImportError(f"features of {family} need: pip install 'fastgan[vit]'") from error
        self.release, self.sha256 = timm.__version__, sha256(weights)
        try:
            self.network, size = _network(_renamed(read_tensors_by_name(weights)), family)
        except KeyError as error:
            raise BadFile(f"{weights}: no weights of {family}: it holds no {error}") from error
        except BadFile as error:
            text = str(error)
            raise BadFile(text if text.startswith(str(weights)) else f"{weights}: {text}") from error
        self.name = family if (family, size) == ("dinov2", "vitl14") else f"{family}-{size}"
        self.dim = self.network.num_classes or self.network.num_features
        for name in ("mean", "std"):
            values = torch.tensor(getattr(FAMILIES[family], name)).view(1, 3, 1, 1)
            self.register_buffer(name, values * 255, persistent=False)
        self.eval().requires_grad_(False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ValueError(f"images is {images.dtype} {list(images.shape)}, expected uint8 [N, 1 or 3, H, W]")
        x = images.to(self.mean.device).float().expand(-1, 3, -1, -1)
        x = F.interpolate(x, (_RESOLUTION, _RESOLUTION), mode="bicubic", antialias=True).clamp(0, 255)
        return self.network((x - self.mean) / self.std)


def _network(state: dict[str, torch.Tensor], family: str) -> tuple[nn.Module, str]:
    """The network whose tensors those are, and what its size is called: vitl14."""
    from timm.models.vision_transformer import VisionTransformer as Network

    patches, known = state.get("patch_embed.proj.weight"), FAMILIES[family]
    depth = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    if patches is None or patches.ndim != 4 or known.holds not in state or "pos_embed" not in state:
        raise BadFile(f"no weights of {family}: it holds {', '.join([*state][:4])}, ...")
    width, patch = patches.shape[0], patches.shape[2]
    if (width, depth) not in SIZES or _RESOLUTION % patch:
        expected = " or ".join(f"{w} wide and {d} deep" for w, d in SIZES)
        raise BadFile(f"a {family} of width {width}, depth {depth} and patches of {patch}, expected one {expected}")
    norm = functools.partial(nn.LayerNorm, eps=1e-6 if family == "dinov2" else 1e-5)
    with torch.device("meta"):  # the numbers are the file's
        network = Network(
            img_size=_RESOLUTION,
            patch_size=patch,
            embed_dim=width,
            depth=depth,
            num_heads=width // 64,
            num_classes=len(state.get("head.weight", ())),
            norm_layer=norm,
            **known.networks,
        )
    if family == "dinov2":
        state = state | {"pos_embed": _resampled(state["pos_embed"].float(), _RESOLUTION // patch)}
    try:
        copies = {name: tensor.to(torch.float32, copy=True) for name, tensor in state.items()}  # the file is mapped
        network.load_state_dict(copies, assign=True)
    except RuntimeError as error:
        raise BadFile(
            f"no weights of {family} at {_RESOLUTION} pixels ({' '.join(str(error).split())[:300]})"
        ) from error
    return network, f"{SIZES[width, depth]}{patch}"


dinov2 = functools.partial(VisionTransformer, family="dinov2")
clip = functools.partial(VisionTransformer, family="clip")
openclip = functools.partial(VisionTransformer, family="openclip")
