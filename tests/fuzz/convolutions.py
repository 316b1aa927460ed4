"""Random calls of the ops that convolve and resample, with their definitions in float64."""

import torch
import torch.nn.functional as F
from calls import IMPL, Call, Draw, not_a_tensor, other_dtype

from fastgan import ops

PADDINGS = ("x", 1.5, [1, 2, 3], None, [0.5, 1])


def _pads(padding):
    p = [padding] if isinstance(padding, int) else list(padding)
    return p * 4 if len(p) == 1 else [p[0], p[0], p[1], p[1]] if len(p) == 2 else p


def _resampled(x, f, up=(1, 1), down=(1, 1), padding=(0, 0, 0, 0), flip=False, gain=1.0):
    """Zeros between samples, padding or cropping, one 2-D convolution, every down-th sample."""
    n, c, h, w = x.shape
    f = torch.ones(1, 1, dtype=x.dtype) if f is None else torch.outer(f, f) if f.dim() == 1 else f
    z = x.new_zeros(n, c, h, up[1], w, up[0])
    z = torch.cat([x[:, :, :, None, :, None], z[:, :, :, 1:, :, :1]], 3)
    z = torch.cat([z, z.new_zeros(n, c, h, up[1], w, up[0] - 1)], 5).reshape(n, c, h * up[1], w * up[0])
    z = F.pad(F.pad(z, [max(p, 0) for p in padding]), [min(p, 0) for p in padding])
    f = f if flip else f.flip((0, 1))
    rows, columns = z.shape[2] - f.shape[0] + 1, z.shape[3] - f.shape[1] + 1
    y = sum(f[i, j] * z[:, :, i : i + rows, j : j + columns] for i in range(f.shape[0]) for j in range(f.shape[1]))
    return y[:, :, :: down[1], :: down[0]] * gain


def _taps(f):
    return (1, 1) if f is None else (f.shape[-1], f.shape[0])


def upfirdn2d(d: Draw) -> Call:
    x, f = d.image(), d.filter()
    up, down = (d.of(1, 1, 2, 3, [1, 2], [3, 2]) for _ in range(2))
    padding = d.of(6, [5, 4], [7, 0, 3, 6], [8, -1, 7, -1])  # six more than no pixels, the most taps of a filter
    arguments = dict(x=x, f=f, up=up, down=down, padding=padding, flip_filter=d.chance(0.5), gain=d.of(1, 0.5, 4))

    def definition(x, f, up, down, padding, flip_filter, gain):
        up, down = ([v, v] if isinstance(v, int) else v for v in (up, down))
        return _resampled(x, f, up, down, _pads(padding), flip_filter, gain)

    wrong = [*not_a_tensor("x", x), ("x", torch.zeros(3, 4, dtype=x.dtype)), ("f", [1.0]), ("f", torch.zeros(0)), IMPL]
    wrong += [
        ("f", torch.ones(2, 2, 2)),
        ("f", torch.ones(2).int()),
        ("f", torch.ones(2, device="meta")),
        ("gain", "x"),
        ("gain", None),
    ]
    wrong += [(name, value) for name in ("up", "down") for value in (0, -1, 1.5, "2", [1, 2, 3], [1, 0], None)]
    wrong += [("padding", p) for p in (*PADDINGS, -99)]
    return Call(ops.upfirdn2d, arguments, definition, ("x", "f"), wrong)


def _same_size(function, resize):
    def call(d: Draw) -> Call:
        x, f = d.image(2), d.filter(4)
        factor = d.of(1, 2, 3) if resize else 1
        arguments = dict(x=x, f=f, padding=d.of(1, 2, [1, 3]), flip_filter=d.chance(0.5), gain=d.of(1, 0.5))
        if resize:
            arguments[resize] = factor

        def definition(x, f, padding, flip_filter, gain, **_):
            up, down = (factor, 1) if resize == "up" else (1, factor)
            pads = _pads(padding)
            for axis, t in enumerate(_taps(f)):
                pads[2 * axis] += (t + up - 1) // 2 if resize == "up" else (t - down + 1) // 2
                pads[2 * axis + 1] += (t - up) // 2 if resize == "up" else (t - down) // 2
            return _resampled(x, f, [up] * 2, [down] * 2, pads, flip_filter, gain * up * up)

        wrong = [
            *not_a_tensor("x", x),
            ("x", torch.zeros(3, 4, dtype=x.dtype)),
            ("f", [1.0]),
            ("f", torch.zeros(0)),
            IMPL,
            ("gain", "x"),
        ]
        wrong += [("padding", p) for p in (*PADDINGS, -99)]
        wrong += [(resize, value) for value in (0, -1, 1.5, "2", [1, 2, 3])] if resize else []
        return Call(function, arguments, definition, ("x", "f"), wrong)

    return call


filter2d, upsample2d = _same_size(ops.filter2d, None), _same_size(ops.upsample2d, "up")
downsample2d = _same_size(ops.downsample2d, "down")


def filtered_lrelu(d: Draw) -> Call:
    d.special = False  # as Inf ends at the clamp and NaN does not, the order of sums decides
    x, fu, fd = d.image(1), d.filter(8), d.filter(8)
    b = d.tensor(x.shape[1]) if d.chance(0.6) else None
    arguments = dict(
        x=x, fu=fu, fd=fd, b=b, up=d.of(1, 2, 4, 3), down=d.of(1, 2, 4, 3), padding=d.of(9, [8, 10], [10, 9, 8, 11])
    )
    arguments |= dict(gain=d.of(1.0, 1.5), slope=d.of(0.2, 0.0, 1.0), clamp=d.of(None, 0.8), flip_filter=d.chance(0.5))

    def definition(x, fu, fd, b, up, down, padding, gain, slope, clamp, flip_filter):
        t = x if b is None else x + b[:, None, None]
        t = _resampled(t, fu, [up] * 2, padding=_pads(padding), flip=flip_filter, gain=up * up)
        t = gain * torch.where(t > 0, t, slope * t)
        t = t if clamp is None else torch.where(t.abs() >= clamp, t.detach().clamp(-clamp, clamp), t)
        return _resampled(t, fd, down=[down] * 2, flip=flip_filter)

    wrong = [
        *not_a_tensor("x", x),
        ("x", torch.zeros(3, 4, dtype=x.dtype)),
        ("fu", [1.0]),
        ("fd", torch.zeros(0)),
        IMPL,
    ]
    wrong += [
        ("b", torch.zeros(x.shape[1] + 1, dtype=x.dtype)),
        ("b", 1.0),
        other_dtype("b", torch.zeros(x.shape[1], dtype=x.dtype)),
    ]
    wrong += [
        ("gain", "x"),
        ("slope", "x"),
        ("slope", None),
        ("clamp", -1),
        ("clamp", "x"),
        ("fu", torch.ones(2, device="meta")),
    ]
    wrong += [(name, value) for name in ("up", "down") for value in (0, -1, 1.5, "2", [1, 2], True)]
    wrong += [("padding", p) for p in (*PADDINGS, -99)]
    return Call(ops.filtered_lrelu, arguments, definition, ("x", "b"), wrong)


def _convolution(transposed):
    function, definition = (ops.conv_transpose2d, F.conv_transpose2d) if transposed else (ops.conv2d, F.conv2d)

    def call(d: Draw) -> Call:
        d.special = False  # NaN and Inf are asked of these by tests/ops/test_not_finite.py
        groups, k = d.of(1, 1, 1, 2), [d.of(1, 2, 3, 4), d.of(1, 3, 3, 4)]
        outputs, inputs = (groups * d.of(1, 2, 3, 32) for _ in range(2))
        x = d.tensor(d.of(0, 1, 2), inputs, d.size(4), d.size(4))
        w = d.tensor(*((inputs, outputs // groups) if transposed else (outputs, inputs // groups)), *k)
        bias = d.tensor(outputs) if d.chance(0.5) else None
        arguments = dict(
            input=x, weight=w, bias=bias, stride=d.of(1, 1, 2, [2, 1]), padding=d.of(0, 1, [1, 0]), groups=groups
        )
        if not transposed:
            arguments["dilation"] = d.of(1, 1, 1, 2) if max(k) < 3 else 1
        wrong = [
            *not_a_tensor("input", x),
            ("input", torch.zeros(3, dtype=x.dtype)),
            ("weight", 1.0),
            other_dtype("weight", w),
            ("weight", w.to("meta")),
        ]
        wrong += [(n, v) for n in ("stride", "dilation") for v in (0, -1, 0.5, "1", [1, 2, 3], None)]
        wrong += [
            (n, v)
            for n, v in (("padding", -1), ("padding", "same"), ("padding", [1, 2, 3]), ("groups", 0), ("groups", 1.0))
        ]
        wrong += [
            ("bias", torch.zeros(outputs + 1, dtype=x.dtype)),
            ("bias", 1.0),
            ("input", torch.zeros(1, inputs + 1, 5, 5, dtype=x.dtype)),
        ]
        wrong += (
            [("output_padding", -1), ("output_padding", "1"), ("output_padding", 9)]
            if transposed
            else [("weight", torch.zeros(*w.shape[:2], 99, 3, dtype=x.dtype))]
        )
        return Call(function, arguments, definition, ("input", "weight", "bias"), wrong)

    return call


conv2d, conv_transpose2d = _convolution(False), _convolution(True)


def _convolved(x, w, f, up, down, padding, groups=1, flip_weight=True, flip_filter=False):
    """Upsample the padded image, convolve, low-pass and keep every down-th sample: nothing exchanged."""
    pads = _pads(padding)
    for axis, t in enumerate(_taps(f)):
        for factor, one in ((up, up > 1), (down, down > 1)):
            if one:
                pads[2 * axis] += (t + up - 1) // 2 if factor is up and up > 1 else (t - down + 1) // 2
                pads[2 * axis + 1] += (t - up) // 2 if factor is up and up > 1 else (t - down) // 2
    if up > 1:
        x = _resampled(x, f, [up] * 2, padding=pads, flip=flip_filter, gain=up * up)
    elif down > 1:
        x = _resampled(x, f, padding=pads, flip=flip_filter)
    else:
        x = F.pad(F.pad(x, [max(p, 0) for p in pads]), [min(p, 0) for p in pads])
    y = F.conv2d(x, w if flip_weight else w.flip((2, 3)), groups=groups)
    return y[:, :, ::down, ::down]


def conv2d_resample(d: Draw) -> Call:
    d.special = False  # NaN and Inf are asked of these by tests/ops/test_not_finite.py
    groups, k = d.of(1, 1, 2), d.of(1, 2, 3)
    x = d.tensor(d.of(0, 1, 2), 2 * groups, d.size(2), d.size(2))
    # Finite: beside a padding of zeros NaN of a kernel depends on what is padded, the image or what becomes of it.
    w = d.tensor(groups * d.of(1, 3), 2, k, k, special=False)
    up, down = d.of((1, 1), (2, 1), (1, 2), (3, 1))
    arguments = dict(x=x, w=w, f=d.filter(4), up=up, down=down, padding=d.of(3, [2, 3], [4, 3, 2, 3]), groups=groups)
    arguments |= dict(flip_weight=d.chance(0.5), flip_filter=d.chance(0.3))
    wrong = [
        *not_a_tensor("x", x),
        ("x", torch.zeros(3, dtype=x.dtype)),
        ("w", 1.0),
        other_dtype("w", w),
        ("w", w[None]),
        ("f", [1.0]),
    ]
    wrong += [(n, v) for n in ("up", "down", "groups") for v in (0, -1, 0.5, "1", None)]
    wrong += [("padding", p) for p in (*PADDINGS, -99)] + [
        ("x", torch.zeros(1, 7, 5, 5, dtype=x.dtype)),
        ("w", w.to("meta")),
    ]
    return Call(ops.conv2d_resample, arguments, _convolved, ("x", "w"), wrong)


def modulated_conv2d(d: Draw) -> Call:
    # Of one channel or two the gradient by styles is a difference of equals: demodulation takes their length out.
    d.special = False  # NaN and Inf are asked of these by tests/ops/test_not_finite.py
    n, inputs, outputs, k = d.of(0, 1, 2, 3), d.of(4, 5, 7), d.of(1, 2, 40), d.of(1, 3)
    x, weight = d.tensor(n, inputs, d.size(2), d.size(2)), d.tensor(outputs, inputs, k, k, special=False)
    styles, up, down = d.tensor(n, inputs, special=False), *d.of((1, 1), (1, 1), (2, 1), (1, 2))
    arguments = dict(x=x, weight=weight, styles=styles, up=up, down=down, padding=k // 2, demodulate=d.chance(0.7))
    arguments |= dict(resample_filter=d.filter(4) if up + down > 2 else None, flip_weight=d.chance(0.5))
    arguments["input_gain"] = d.of(None, None, 0.7, d.tensor(inputs, special=False), d.tensor(n, inputs, special=False))

    def definition(x, weight, styles, demodulate, resample_filter, flip_weight, input_gain, noise=None, **form):
        w = weight[None] * styles[:, None, :, None, None]
        w = w * (w.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt() if demodulate else w
        gain = (
            1.0
            if input_gain is None
            else torch.as_tensor(input_gain, dtype=x.dtype).expand(n, inputs)[:, None, :, None, None]
        )
        w = w * gain
        every = [_convolved(x[i : i + 1], w[i], resample_filter, flip_weight=flip_weight, **form) for i in range(n)]
        return torch.cat(every) if n else _convolved(x, weight, resample_filter, flip_weight=flip_weight, **form)

    wrong = [
        *not_a_tensor("x", x),
        *not_a_tensor("styles", styles),
        ("weight", 1.0),
        ("weight", weight[0]),
        ("styles", styles[:, :0]),
    ]
    wrong += [(name, v) for name in ("up", "down") for v in (0, -1, 0.5, "1")] + [
        ("padding", p) for p in (*PADDINGS, -99)
    ]
    wrong += [
        ("noise", torch.zeros(n, 2, 1, 1, dtype=x.dtype)),
        ("noise", torch.zeros(77, 3)),
        ("noise", 1.0),
        ("resample_filter", [1.0]),
        IMPL,
    ]
    wrong += [
        ("input_gain", "x"),
        ("input_gain", torch.zeros(9)),
        ("weight", weight.to("meta")),
        ("noise", torch.zeros(1, 1 if max(x.shape[2:]) > 4 else 99)),  # the output may have one pixel
    ]
    return Call(ops.modulated_conv2d, arguments, definition, ("x", "weight", "styles"), wrong)
