"""Layers of torch that fastgan computes in another way: which, from which size on it pays, and the ways themselves.

A layer's class changes, so it is faster whoever calls it: a loop, a functional forward, a hook's owner. It decides once for
each shape, dtype, device, mode of gradients and autocast, and its own options, and then looks the way up.
"""

import contextlib
import functools
import math
import operator
import threading
import weakref
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import nn
from torch.compiler import is_compiling

from fastgan import ops
from fastgan._torch_private import autocast_anywhere, tracing, transforming
from fastgan.ops import _library, conv_forms
from fastgan.ops._checks import FLOATS
from fastgan.ops.conv2d import apply
from fastgan.ops.conv_forms import COLUMNS, WINOGRAD, Form, plain
from fastgan.patch.swap import LAID_OUT, PAYS, PLAN, Accelerated, original

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = {
    nn.ConvTranspose1d: F.conv_transpose1d,
    nn.ConvTranspose2d: F.conv_transpose2d,
    nn.ConvTranspose3d: F.conv_transpose3d,
}
INSTANCE_NORMS = {nn.InstanceNorm1d: 3, nn.InstanceNorm2d: 4, nn.InstanceNorm3d: 5}  # and the rank of their batches
AUTOCAST = {"cuda"}  # devices where a step is one under autocast too. On the CPU nothing was gained by it.
PLAIN = {torch.Tensor, nn.Parameter}
BOTH = frozenset((False, True))  # with gradients and without
FEW = 2048  # pixels of all images, for Winograd's algorithm with gradients by few channels
LEAST = 16384  # numbers for PReLU: of 8192 it takes 1.25 times as long as torch's, of 131072 a quarter
ASKED = {"cpu"}  # devices where numbers are looked at in every call. Elsewhere that waits, and no graph can hold it.
KEPT = 64  # decisions of a layer; a network for images of any size would remember all of them


def has_kernel(op: str, device: torch.device) -> bool:
    """Whether `op` has more than its reference on this device."""
    return _has_kernel(op, device.type)


@functools.cache
def _has_kernel(op: str, device: str) -> bool:
    kernels = ("cpp",) if device == "cpu" else ("triton", "cuda")
    return any(_library.availability(op, kernel).loaded for kernel in kernels)


def is_recorded(module: nn.Module, x: torch.Tensor) -> bool:
    """Whether autograd records module(x), where gradients are on."""
    return x.requires_grad or (module.weight is not None and module.weight.requires_grad)


def without_bias(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What a linear layer or a convolution adds its bias to."""
    kind = original(module)
    if kind is nn.Linear:
        return F.linear(x, module.weight)
    if kind in CONVOLUTIONS:
        return module._conv_forward(x, module.weight, None)
    options = (module.stride, module.padding, module.output_padding, module.groups, module.dilation)
    return TRANSPOSED[kind](x, module.weight, None, *options)


class Layer(Accelerated):
    """A layer of torch with a table of ways to compute it."""

    options: Callable  # what of the module the decision depends on

    def forward(self, input, output_size=None):
        if output_size is not None or type(input) not in PLAIN or is_compiling() or tracing():
            return super().forward(input, *(() if output_size is None else (output_size,)))
        return self.decided(input)(self, input)

    def decided(self, x: torch.Tensor) -> Callable:
        """way(module, x) for x."""
        plan = self.__dict__[PLAN]
        recorded = torch.is_grad_enabled() and is_recorded(self, x)
        key = (x.shape, x.dtype, x.device, recorded, autocast_anywhere(), plain(), self.options(self))
        way = plan.get(key)
        if way is None:
            if len(plan) >= KEPT:
                plan.clear()
            paying = recorded in self.__dict__.get(PAYS, BOTH)
            way = (self.choose(x, recorded) if paying else None) or self.as_ever(x)
            plan[key] = way
        return way

    def choose(self, x: torch.Tensor, recorded: bool) -> Callable | None:
        """way(module, x) for this input; None for torch's own."""
        raise NotImplementedError

    def as_ever(self, x: torch.Tensor) -> Callable:
        """torch's own way(module, x)."""
        return original(self).forward


class Norm(Layer):
    """Instance norm by `norm_act`, with what follows it where a pair says so."""

    @staticmethod
    def options(module):
        weight = module._parameters.get("weight")
        return module.num_features, module.track_running_stats, None if weight is None else weight.dtype

    def choose(self, x, recorded):
        if not self._fits(x) or not len(x) or x.dtype not in FLOATS or not has_kernel("norm_act", x.device):
            return None
        if not self.__dict__.get(PAYS) and not pays(x, math.prod(x.shape[2:])):
            return None
        if autocast_anywhere() and torch.is_autocast_enabled(x.device.type):
            return norm_op if x.device.type in AUTOCAST else None
        # torch's takes weights of float32 to images of 16 bits.
        return norm if self.weight is None or self.weight.dtype == x.dtype else None

    def as_ever(self, x):
        return torchs_norm if self._fits(x) else original(self).forward

    def _fits(self, x: torch.Tensor) -> bool:
        """Whether x is what the module asks for."""
        usual = x.dim() == INSTANCE_NORMS[original(self)] and x.shape[1] == self.num_features
        return usual and not self.track_running_stats and math.prod(x.shape[2:]) > 1

    def way(self, x) -> Callable | None:
        """`norm`, `norm_op` or `torchs_norm`, whichever computes `x`. Whether somebody looks at it the caller has asked."""
        if type(x) not in PLAIN or tracing():
            return None
        found = self.decided(x)
        return found if found in (norm, norm_op, torchs_norm) else None

    def plus(self, x, residual) -> torch.Tensor | None:
        """norm(x) + residual in one; None where it is not."""
        way = self.way(x)
        usual = type(residual) in PLAIN and residual.shape == x.shape and residual.dtype == x.dtype
        if way is None or way is torchs_norm or not usual:
            return None
        if not _layout.kept and not residual.is_contiguous():  # a sum may have either one's layout
            return None
        return way(self, x, residual=residual)


def pays(x: torch.Tensor, pixels: int) -> bool:
    """Whether instance norm of a layer that was not measured is ours: of 64 pixels it takes 1.4 times as long with gradients, of
    16 channels of 256 pixels 1.35 times, of 3 channels of 4096 pixels 1.2 times. Without gradients of 128 channels of 256 pixels
    half as long, but twice as long where it is the only one in a network, whose other layers put its code out of the cache; a
    frozen network asks for it in pixels, which torch's copies."""
    return x.device.type != "cpu" or (pixels >= 256 and x.numel() >= (8192 if plain() else 49152))


class _Layout(threading.local):
    kept = False


_layout = _Layout()


@contextlib.contextmanager
def keeping_layout() -> Iterator[None]:
    """Within, instance norm leaves channels last where they are. torch's gives contiguous images, of which a view may be taken;
    so does ours, but in what is laid out as a whole and gives its result as the original does."""
    before, _layout.kept = _layout.kept, True
    try:
        yield
    finally:
        _layout.kept = before


def _as_torch(x: torch.Tensor) -> torch.Tensor:
    return x if _layout.kept else x.contiguous()


def norm(module, x, act="linear", alpha=0.0, residual=None):
    x = _as_torch(x)
    arguments = (x, module.weight, module.bias, residual, act, float(alpha), module.eps)
    return _library.select("norm_act", "auto", x)(*arguments)[0]


def norm_op(module, x, act="linear", alpha=0.0, residual=None):
    return ops.norm_act(_as_torch(x), module.weight, module.bias, residual, act, alpha, module.eps)


# torch's own, past the Python of its modules: that a convolution has put out of the processor's cache, and it then takes longer
# than the norm of a small image.
def torchs_norm(module, x):
    return torch.instance_norm(
        x, module.weight, module.bias, None, None, True, 0.0, module.eps, torch.backends.cudnn.enabled
    )


def torchs_convolution(module, x):
    form = (module.stride, module.padding, module.dilation, module.groups)
    return F.conv2d(x, module.weight, module.bias, *form)


def torchs_transposed(module, x, weight=None):
    weight = module.weight if weight is None else weight
    form = (module.stride, module.padding, module.output_padding, module.groups, module.dilation)
    return F.conv_transpose2d(x, weight, module.bias, *form)


def _options(module):
    """Of a convolution; `_conv_forward` where scripts gave the object one of its own."""
    form = module.stride, module.padding, module.dilation, module.output_padding, module.groups
    return form, module.padding_mode, module.__dict__.get("_conv_forward")


class Convolution(Layer):
    """A convolution, plain or transposed, by one of `conv_forms`; a transposed one over a single pixel as a matrix product."""

    options = staticmethod(_options)

    def choose(self, x, recorded):
        way = self._algorithm(x, recorded) if is_plain(self) else None
        if not self.__dict__.get(LAID_OUT):
            return way
        misread = recorded and isinstance(self, nn.ConvTranspose2d) and x.is_cpu
        return functools.partial(_laid_out, way or (_as_it_lay if misread else self.as_ever(x)))

    def as_ever(self, x):
        if not is_plain(self):
            return original(self).forward
        return torchs_transposed if isinstance(self, nn.ConvTranspose2d) else torchs_convolution

    def _algorithm(self, x, recorded) -> Callable | None:
        transposed = isinstance(self, nn.ConvTranspose2d)
        usual = x.dim() == 4 and x.device.type == "cpu" and not autocast_anywhere() and x.dtype == self.weight.dtype
        if not usual or x.shape[1] != self.in_channels or isinstance(self.padding, str):
            return None
        if plain():  # a frozen network is being recorded
            return None
        form = _form(self)
        if transposed and is_over_one_pixel(self):
            return _product if x.shape[2:] == (1, 1) and len(x) and not recorded else None
        algorithm = conv_forms.choose(x, self.weight, form)
        if algorithm is None or not (self.__dict__.get(PAYS) or gains(algorithm, self, recorded, x)):
            return None
        return lambda module, x: apply(x, module.weight, module.bias, form)


class DilatedConvolution(Layer):
    """A Conv1d of many taps as one in two dimensions, channels last: kept where it was measured to pay."""

    options = staticmethod(_options)

    def choose(self, x, recorded):
        usual = x.dim() == 3 and x.device.type == "cpu" and len(x) and not isinstance(self.padding, str)
        return _in_two_dimensions if usual and is_plain(self) else None


class Slopes(Layer):
    """PReLU whose gradients are taken, by `prelu`. Without gradients torch's is as fast, alone."""

    options = operator.attrgetter("num_parameters")

    def choose(self, x, recorded):
        usual = recorded and not plain() and not autocast_anywhere() and has_kernel("prelu", x.device)
        large = self.__dict__.get(PAYS) or x.numel() >= LEAST
        return _prelu if usual and large and self._fits(x) else None

    def _fits(self, x: torch.Tensor) -> bool:
        slope = self.weight
        along = len(slope) == 1 or (x.dim() > 1 and x.shape[1] == len(slope))
        return along and x.is_cpu and x.dtype == slope.dtype and x.dtype in (torch.float32, torch.float64)


class Filter(Layer):
    """A depthwise convolution with the same fixed filter for every channel, by `upfirdn2d`."""

    options = operator.attrgetter("stride", "padding", "groups", "output_padding")

    def choose(self, x, recorded):
        batch = x.dim() == 4 and x.dtype == self.weight.dtype and x.dtype in FLOATS and not autocast_anywhere()
        if not batch or not is_fixed_filter(self) or not has_kernel("upfirdn2d", x.device):
            return None
        # torch has transposed convolutions to images of no pixels.
        transposed = isinstance(self, nn.ConvTranspose2d)
        empty = transposed and min(conv_forms.transposed_size(x, self.weight, _form(self))) < 1
        return None if empty else _filtered


def _in_two_dimensions(module, x):
    rows = x.unsqueeze(2).contiguous(memory_format=torch.channels_last)
    (stride,), (padding,), (dilation,) = module.stride, module.padding, module.dilation
    weight = module.weight.unsqueeze(2)
    y = F.conv2d(rows, weight, module.bias, (1, stride), (0, padding), (1, dilation), module.groups)
    return y.squeeze(2).contiguous()


def _prelu(module, x):
    return _library.select("prelu", "auto", x)(x, module.weight)


def _as_it_lay(module, x):
    """With gradients the weight is contiguous, as before it was laid out: else that of x comes channels last, and of that, for a
    single image, torch's instance norm makes wrong numbers (2.14, CPU)."""
    return torchs_transposed(module, x, module.weight.contiguous())


def _laid_out(way, module, x):
    """Not within `keeping_layout` the result lies as from a weight that is contiguous: somebody may take a view of it."""
    y = way(module, x)
    last = x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return y if _layout.kept or last else y.contiguous()


def _product(module, x):
    weight, bias, (ky, kx) = module.weight, module.bias, module.kernel_size
    if not weight.is_contiguous():
        return original(module).forward(module, x)
    bias = None if bias is None else bias.repeat_interleave(ky * kx)
    return F.linear(x.flatten(1), weight.flatten(1).t(), bias).view(-1, module.out_channels, ky, kx)


def _filtered(module, x):
    f = module.weight[0, 0]
    if not is_fixed_filter(module) or transforming() or not is_one_filter(module.weight):
        return original(module).forward(module, x)
    (sy, sx), (py, px) = module.stride, module.padding
    if isinstance(module, nn.Conv2d):
        return ops.upfirdn2d(x, f, down=[sx, sy], padding=[px, px, py, py], flip_filter=True)
    ky, kx = f.shape
    oy, ox = module.output_padding
    padding = [kx - 1 - px, kx - px - sx + ox, ky - 1 - py, ky - py - sy + oy]
    return ops.upfirdn2d(x, f, up=[sx, sy], padding=padding)


_known: dict[int, tuple[weakref.ref, tuple[int, int] | None, bool]] = {}  # by the id of a weight


def is_one_filter(weight: torch.Tensor) -> bool:
    """Whether every channel has the same filter: a fact about numbers. On the CPU it is asked for at every call, a few kB. On a
    GPU a weight that is met again is asked once, until it is changed in place (not by way of `.data`); of one that is met for the
    first time, which may be made anew in each call, it is False."""
    if weight.stride(0) == 0:
        return True
    if weight.device.type in ASKED:
        return torch.equal(weight, weight[:1].expand_as(weight))
    if weight.is_inference():  # of its changes nothing is known
        return False
    name, state = id(weight), (weight.data_ptr(), weight._version)
    reference, before, same = _known.get(name, (None, None, False))
    if reference is None or reference() is not weight:
        _known[name] = weakref.ref(weight, lambda _: _known.pop(name, None)), None, False
        return False
    if before != state:
        same = torch.equal(weight, weight[:1].expand_as(weight))
        _known[name] = reference, state, same
    return same


def is_over_one_pixel(module: nn.ConvTranspose2d) -> bool:
    """Whether it may be a generator's first layer, over a 1x1 input."""
    usual = module.groups == 1 and module.dilation == (1, 1)
    return usual and module.padding == (0, 0) and module.output_padding == (0, 0)


def is_plain(module: nn.Module) -> bool:
    """Whether it convolves as its class does, with zeros around."""
    return module.padding_mode == "zeros" and "_conv_forward" not in module.__dict__


def is_fixed_filter(module: nn.Module) -> bool:
    """Whether the module is a depthwise convolution whose weight is not learnt."""
    return (
        module.groups == module.in_channels == module.out_channels > 1
        and not module.weight.requires_grad
        and module.bias is None
        and is_plain(module)
        and not isinstance(module.padding, str)
        and tuple(module.dilation) == (1, 1)
    )


def _form(module: nn.Conv2d | nn.ConvTranspose2d) -> Form:
    transposed = isinstance(module, nn.ConvTranspose2d)
    return Form(module.stride, module.padding, module.dilation, transposed, module.output_padding, module.groups)


def gains(algorithm: conv_forms.Algorithm, module: nn.Module, recorded: bool, x: torch.Tensor | None = None) -> bool:
    """Whether an algorithm pays where nobody measured: not with gradients of a transposed convolution; by AVX2, Winograd's
    algorithm takes 0.88 to 1.2 of torch's time; of 64 channels, whose gradient by the weight is torch's, with gradients 1.2 for
    256 pixels, 1 for 1024, 0.86 for 4096 (Sapphire Rapids)."""
    if recorded and isinstance(module, nn.ConvTranspose2d):
        return False
    if algorithm is not WINOGRAD:
        return True
    few = recorded and min(module.weight.shape[:2]) < WINOGRAD.weight_channels
    return torch.ops.fastgan.cpu_level("") != "avx2" and not (few and x.numel() < FEW * x.shape[1])


def form_of(module: nn.Module, measured: bool = False) -> tuple[type, str] | str | None:
    """The form that a layer of torch gets and what it does; why a candidate gets none; None for other modules.

    measured: whether it will be kept only where it pays: then forms are tried that seldom do.
    """
    kind = type(module)
    if kind in INSTANCE_NORMS:
        if module.track_running_stats:
            return "instance norm with running statistics, which differ between training and evaluation"
        why = _without_kernel("norm_act", module)
        return why or (Norm, "instance norm -> norm_act")
    if kind is nn.PReLU:
        return _without_kernel("prelu", module) or (Slopes, "PReLU, its gradients in one pass")
    if kind is nn.Conv1d and measured and module.kernel_size[0] >= 7 and module.groups == 1:
        return DilatedConvolution, "Conv1d in two dimensions, channels last"
    if kind not in (nn.Conv2d, nn.ConvTranspose2d):
        return None
    if not isinstance(module.weight, torch.Tensor) or isinstance(module.weight, nn.parameter.UninitializedParameter):
        return None
    if is_fixed_filter(module):
        why = _without_kernel("upfirdn2d", module)
        return why or (Filter, f"depthwise {kind.__name__} with a fixed filter -> upfirdn2d")
    what = other_form(module, measured)
    return (Convolution, what) if what else None


def _without_kernel(op: str, module: nn.Module) -> str:
    device = next((t.device for t in (*module.parameters(), *module.buffers())), torch.device("cpu"))
    anywhere = torch.cuda.is_available() and has_kernel(op, torch.device("cuda"))
    return "" if has_kernel(op, device) or anywhere else f"{op} has no kernel for {device.type} here"


def other_form(module: nn.Module, measured: bool = True) -> str:
    """How a convolution is computed on the CPU; "" for as ever."""
    if isinstance(module, nn.ConvTranspose2d) and is_over_one_pixel(module):
        return "a matrix product where its input is 1x1"
    weight = module.weight
    ours = weight.dtype == torch.float32 and weight.device.type == "cpu"
    if not ours or module.padding_mode != "zeros" or isinstance(module.padding, str):
        return ""
    other = conv_forms.serving(weight, _form(module))
    # 4x4 without padding is the last layer of a discriminator, over all of a 4x4 input: "columns" does not take it.
    over_all = other is COLUMNS and module.kernel_size == (4, 4) and module.padding == (0, 0)
    return other.what if other and not over_all and (measured or gains(other, module, False)) else ""
