"""DINOv2 and CLIP from local files: the networks that the papers define, by every publisher's names; wrong files are refused."""

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

pytest.importorskip("timm", reason="extra vit is not installed")

from fastgan.metrics import images, vit

WIDTH, DEPTH, OUT = 128, 2, 48


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(vit.SIZES, (WIDTH, DEPTH), "tiny")
    images._read_once.cache_clear()


def randn(*shape):
    return torch.randn(shape, generator=randn.source) * 0.15


randn.source = torch.Generator().manual_seed(0)


def block(prefix, qkv, names):
    """Tensors of a block; `names`: what norm1, norm2, the projection of attention and the MLP's two layers are called."""
    norm1, norm2, proj, up, down = names
    state = {f"{prefix}{qkv}{kind}": randn(3 * WIDTH, *more) for kind, more in (("weight", (WIDTH,)), ("bias", ()))}
    for name, shape in (
        (norm1, ()),
        (norm2, ()),
        (proj, (WIDTH, WIDTH)),
        (up, (4 * WIDTH, WIDTH)),
        (down, (WIDTH, 4 * WIDTH)),
    ):
        state[f"{prefix}{name}.weight"] = randn(*(shape or (WIDTH,)))
        state[f"{prefix}{name}.bias"] = randn((shape or (WIDTH,))[0])
    return state


def dinov2_state(side=37):
    state = {
        "cls_token": randn(1, 1, WIDTH),
        "mask_token": randn(1, WIDTH),
        "pos_embed": randn(1, 1 + side * side, WIDTH),
        "patch_embed.proj.weight": randn(WIDTH, 3, 14, 14),
        "patch_embed.proj.bias": randn(WIDTH),
        "norm.weight": randn(WIDTH),
        "norm.bias": randn(WIDTH),
    }
    for i in range(DEPTH):
        state |= block(f"blocks.{i}.", "attn.qkv.", ("norm1", "norm2", "attn.proj", "mlp.fc1", "mlp.fc2"))
        state |= {f"blocks.{i}.ls{n}.gamma": randn(WIDTH) for n in (1, 2)}
    return state


def clip_state(patch=32, side=7):
    state = {
        "visual.class_embedding": randn(WIDTH),
        "visual.positional_embedding": randn(1 + side * side, WIDTH),
        "visual.conv1.weight": randn(WIDTH, 3, patch, patch),
        "visual.proj": randn(WIDTH, OUT),
        **{f"visual.ln_{place}.{kind}": randn(WIDTH) for place in ("pre", "post") for kind in ("weight", "bias")},
        "logit_scale": randn(),
        "transformer.resblocks.0.ln_1.weight": randn(WIDTH),  # of the text encoder
    }
    for i in range(DEPTH):
        names = ("ln_1", "ln_2", "attn.out_proj", "mlp.c_fc", "mlp.c_proj")
        state |= block(f"visual.transformer.resblocks.{i}.", "attn.in_proj_", names)
    return state


def of_transformers(state):
    """The same tensors of CLIP as transformers names them, text encoder and all."""
    names = {
        r"^visual\.class_embedding$": "vision_model.embeddings.class_embedding",
        r"^visual\.positional_embedding$": "vision_model.embeddings.position_embedding.weight",
        r"^visual\.conv1\.": "vision_model.embeddings.patch_embedding.",
        r"^visual\.ln_pre\.": "vision_model.pre_layrnorm.",
        r"^visual\.ln_post\.": "vision_model.post_layernorm.",
        r"^visual\.transformer\.resblocks\.": "vision_model.encoder.layers.",
        r"\.ln_(\d)\.": r".layer_norm\1.",
        r"\.attn\.out_proj\.": ".self_attn.out_proj.",
        r"\.c_fc\.": ".fc1.",
        r"\.c_proj\.": ".fc2.",
        r"^transformer\.resblocks": "text_model.encoder.layers",
    }
    found = {"vision_model.embeddings.position_ids": torch.arange(50)[None]}
    for name, tensor in state.items():
        for theirs, ours in names.items():
            name = re.sub(theirs, ours, name)
        if name == "visual.proj":
            found["visual_projection.weight"] = tensor.mT.contiguous()
        elif ".attn.in_proj_" in name:
            for part, third in zip("qkv", tensor.chunk(3), strict=True):
                found[name.replace("attn.in_proj_", f"self_attn.{part}_proj.")] = third.contiguous()
        else:
            found[name] = tensor
    return found


def attention(x, qkv, proj):
    query, key, value = (F.linear(x, *qkv).unflatten(2, (3, WIDTH // 64, 64)).permute(2, 0, 3, 1, 4)).unbind(0)
    weights = (query @ key.mT / 8).softmax(3)
    return F.linear((weights @ value).transpose(1, 2).flatten(2), *proj)


def transformer(x, state, prefix, qkv, names, act, eps):
    """Blocks as the papers write them: x + s1 attention(norm x), then x + s2 MLP(norm x)."""
    for i in range(DEPTH):
        both = lambda name, p=f"{prefix}{i}.": (state[f"{p}{name}weight"], state[f"{p}{name}bias"])  # noqa: E731
        norm1, norm2, proj, up, down = (f"{name}." for name in names)
        scale1, scale2 = (state.get(f"{prefix}{i}.ls{n}.gamma", 1) for n in (1, 2))
        x = x + scale1 * attention(F.layer_norm(x, [WIDTH], *both(norm1), eps), both(qkv), both(proj))
        hidden = act(F.linear(F.layer_norm(x, [WIDTH], *both(norm2), eps), *both(up)))
        x = x + scale2 * F.linear(hidden, *both(down))
    return x


def pixels(x, family):
    """PIL's bicubic resize, in floats."""
    mean, std = (np.array(values) * 255 for values in (vit.FAMILIES[family].mean, vit.FAMILIES[family].std))
    resized = [
        [
            np.asarray(Image.fromarray(c.numpy().astype("f4")).resize((224, 224), Image.Resampling.BICUBIC))
            for c in image
        ]
        for image in x.expand(-1, 3, -1, -1)
    ]
    normal = (np.array(resized).clip(0, 255) - mean[:, None, None]) / std[:, None, None]
    return torch.from_numpy(normal).float()


def pictures(channels=3):
    return torch.randint(0, 256, (3, channels, 300, 40), dtype=torch.uint8, generator=randn.source)


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=float(expected.abs().max()) * 1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_dinov2_is_the_class_token_of_its_paper(tmp_path, channels):
    state, x = dinov2_state(), pictures(channels)
    torch.save(state, tmp_path / "d.pth")
    grid = state["pos_embed"][:, 1:].mT.unflatten(2, (37, 37))
    places = torch.cat(
        [state["pos_embed"][:, :1], F.interpolate(grid, scale_factor=16.1 / 37, mode="bicubic").flatten(2).mT], 1
    )
    weight, bias = (state[f"patch_embed.proj.{kind}"] for kind in ("weight", "bias"))
    patches = F.conv2d(pixels(x, "dinov2"), weight, bias, stride=14).flatten(2).mT
    y = torch.cat([state["cls_token"].expand(3, -1, -1), patches], 1) + places
    names = ("norm1", "norm2", "attn.proj", "mlp.fc1", "mlp.fc2")
    y = transformer(y, state, "blocks.", "attn.qkv.", names, F.gelu, 1e-6)
    expected = F.layer_norm(y[:, 0], [WIDTH], state["norm.weight"], state["norm.bias"], 1e-6)
    network = images.load_extractor("dinov2", weights=tmp_path / "d.pth")
    assert network.name == "dinov2-tiny14" and network.dim == WIDTH
    close(network(x), expected)


@pytest.mark.parametrize("family", ["clip", "openclip"])
def test_clip_is_the_projected_token_of_its_paper_by_either_name(tmp_path, family):
    from safetensors.torch import save_file

    state, x = clip_state(), pictures()
    torch.save(state, tmp_path / "c.pt")
    save_file(of_transformers(state), tmp_path / "c.safetensors")
    norm = {place: (state[f"visual.ln_{place}.weight"], state[f"visual.ln_{place}.bias"]) for place in ("pre", "post")}
    patches = F.conv2d(pixels(x, family), state["visual.conv1.weight"], stride=32).flatten(2).mT
    y = torch.cat([state["visual.class_embedding"].expand(3, 1, -1), patches], 1) + state["visual.positional_embedding"]
    act = F.gelu if family == "openclip" else lambda h: h * torch.sigmoid(1.702 * h)
    names = ("ln_1", "ln_2", "attn.out_proj", "mlp.c_fc", "mlp.c_proj")
    y = transformer(
        F.layer_norm(y, [WIDTH], *norm["pre"]),
        state,
        "visual.transformer.resblocks.",
        "attn.in_proj_",
        names,
        act,
        1e-5,
    )
    expected = F.layer_norm(y[:, 0], [WIDTH], *norm["post"]) @ state["visual.proj"]
    for name in ("c.pt", "c.safetensors"):
        network = images.load_extractor(family, weights=tmp_path / name)
        assert network.name == f"{family}-tiny32" and network.dim == OUT
        close(network(x), expected)


def test_half_precision_files_are_computed_in_float32(tmp_path):
    state = {name: tensor.half() for name, tensor in clip_state().items()}
    torch.save(state, tmp_path / "half.pt")
    torch.save({name: tensor.float() for name, tensor in state.items()}, tmp_path / "full.pt")
    half, full = (vit.clip(tmp_path / f"{name}.pt") for name in ("half", "full"))
    x = pictures()
    assert torch.equal(half(x), full(x)) and half.precision == "float32" and half.sha256 != full.sha256


def test_names_of_the_published_sizes():
    sizes = {(384, 12): "vits", (768, 12): "vitb", (1024, 24): "vitl"}
    assert {key: name for key, name in vit.SIZES.items() if key != (WIDTH, DEPTH)} == sizes


def without(state, *names):
    return {name: tensor for name, tensor in state.items() if not name.startswith(names)}


@pytest.mark.parametrize(
    ("family", "make", "message"),
    [
        ("dinov2", lambda: {"a": randn(3)}, "no weights of dinov2: it holds a"),
        ("dinov2", clip_state, "no weights of dinov2: it holds"),
        ("clip", dinov2_state, "no weights of clip: it holds"),
        (
            "clip",
            lambda: without(clip_state(), "visual.proj"),
            "no weights of clip: it holds no 'visual_projection.weight'",
        ),
        ("clip", lambda: without(clip_state(), "visual.class"), "it holds no 'cls_token'"),
        ("clip", lambda: clip_state(side=10), "at 224 pixels .*size mismatch for pos_embed"),
        (
            "clip",
            lambda: without(clip_state(), "visual.transformer.resblocks.1"),
            "width 128, depth 1 and patches of 32",
        ),
        ("dinov2", lambda: without(dinov2_state(), "blocks.1.mlp.fc2.bias"), "Missing key.*blocks.1.mlp.fc2.bias"),
        ("dinov2", lambda: dinov2_state() | {"register_tokens": randn(1, 4, WIDTH)}, "Unexpected key.*register_tokens"),
        ("dinov2", lambda: dinov2_state() | {"pos_embed": randn(1, 12, WIDTH)}, "of 11 patches, expected a square"),
        ("dinov2", lambda: {"model": dinov2_state()}, "holds dict, expected tensors by name"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path, family, make, message):
    torch.save(make(), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=rf"w\.pth.*{message}"):
        images.load_extractor(family, weights=tmp_path / "w.pth")


def test_files_that_are_none(tmp_path):
    (tmp_path / "t.safetensors").write_text("hello")
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "clip.pt")
    with pytest.raises(ValueError, match=r"t\.safetensors is no whole"):
        images.load_extractor("clip", weights=tmp_path / "t.safetensors")
    with pytest.raises(ValueError, match=r"TorchScript program. It was not run"):
        images.load_extractor("clip", weights=tmp_path / "clip.pt")
    with pytest.raises(FileNotFoundError):
        images.load_extractor("clip", weights=tmp_path / "none.pt")
    with pytest.raises(ValueError, match="dinov2 needs a local file of its published weights"):
        images.load_extractor("dinov2")


def test_another_file_under_the_same_name_is_read_again(tmp_path):
    torch.save(dinov2_state(), tmp_path / "d.pth")
    first = images.load_extractor("dinov2", weights=tmp_path / "d.pth")
    assert images.load_extractor("dinov2", weights=tmp_path / "d.pth") is first
    torch.save(dinov2_state(16), tmp_path / "d.pth")
    assert images.load_extractor("dinov2", weights=tmp_path / "d.pth").sha256 != first.sha256


def test_images_of_another_kind(tmp_path):
    torch.save(dinov2_state(), tmp_path / "d.pth")
    with pytest.raises(ValueError, match=r"images is torch.float32 \[1, 3, 8, 8\], expected uint8"):
        vit.dinov2(tmp_path / "d.pth")(torch.zeros(1, 3, 8, 8))
