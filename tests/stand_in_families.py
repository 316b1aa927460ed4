"""Sources of small packages in the shape of BasicSR, rosinality's `op`, mmcv-lite and BigVGAN, from interface facts."""

BUILD = "raise RuntimeError('importing would compile a plugin')"
FUSED = """
    import torch
    try:
        from . import fused_act_ext
    except ImportError:
        pass

    class FusedLeakyReLU(torch.nn.Module):
        def __init__(self, channel, negative_slope=0.2, scale=2 ** 0.5):
            super().__init__()
            self.bias = torch.nn.Parameter(torch.randn(channel))
            self.negative_slope, self.scale = negative_slope, scale

        def forward(self, input):
            return fused_leaky_relu(input, self.bias, self.negative_slope, self.scale)

    def fused_leaky_relu(input, bias, negative_slope=0.2, scale=2 ** 0.5):
        return fused_act_ext.fused_bias_act(input, bias)
"""
BASICSR = {
    "basicsr/__init__.py": "from .degradations import grayscale\nfrom .archs import Net",
    "basicsr/degradations.py": "from torchvision.transforms.functional_tensor import rgb_to_grayscale as grayscale",
    "basicsr/archs.py": """
        import torch
        from basicsr.ops.fused_act import FusedLeakyReLU, fused_leaky_relu
        from basicsr.ops.upfirdn2d import upfirdn2d
        from basicsr.ops.dcn import deform_conv, modulated_deform_conv
        Net = FusedLeakyReLU
    """,
    "basicsr/ops/__init__.py": "",
    "basicsr/ops/fused_act/__init__.py": "from .fused_act import FusedLeakyReLU, fused_leaky_relu",
    "basicsr/ops/fused_act/fused_act.py": FUSED,
    "basicsr/ops/upfirdn2d/__init__.py": "from .upfirdn2d import upfirdn2d",
    "basicsr/ops/upfirdn2d/upfirdn2d.py": "def upfirdn2d(input, kernel, up=1, down=1, pad=(0, 0)): 1 / 0",
    "basicsr/ops/dcn/__init__.py": "from .deform_conv import deform_conv, modulated_deform_conv",
    "basicsr/ops/dcn/deform_conv.py": """
        import torch

        class Function(torch.autograd.Function): pass
        class Modulated(torch.autograd.Function): pass

        deform_conv, modulated_deform_conv = Function.apply, Modulated.apply
    """,
}
CUDA_OP = {
    "__init__.py": "from .fused_act import FusedLeakyReLU, fused_leaky_relu\nfrom .upfirdn2d import upfirdn2d",
    "fused_act.py": BUILD,
    "upfirdn2d.py": BUILD,
}
MMCV_LITE = {
    "mmcv/__init__.py": "",
    "mmcv/ext_loader.py": """
        import importlib

        def load(names):
            extension = importlib.import_module("mmcv._ext")
            for name in names:
                assert hasattr(extension, name)
            return extension
    """,
    "mmcv/ops/__init__.py": "from .nms import nms\nfrom .fused_bias_leakyrelu import fused_bias_leakyrelu\n"
    "from .upfirdn2d import filter2d, upfirdn2d, upsample2d",
    "mmcv/ops/nms.py": "from ..ext_loader import load\nextension = load(['nms'])\n\ndef nms(boxes): return extension.nms(boxes)",
    "mmcv/ops/fused_bias_leakyrelu.py": "from ..ext_loader import load\nload(['fused_bias_leakyrelu'])\n"
    "def fused_bias_leakyrelu(input, bias, negative_slope=0.2, scale=2**0.5): 1 / 0",
    "mmcv/ops/upfirdn2d.py": """
        def upfirdn2d(input, filter, up=1, down=1, padding=0, flip_filter=False, gain=1, use_custom_op=True): 1 / 0
        def filter2d(input, filter, padding=0, flip_filter=False, gain=1, use_custom_op=True): 1 / 0
        def upsample2d(input, filter, up=2, padding=0, flip_filter=False, gain=1, use_custom_op=True): 1 / 0
    """,
}
FILTER = """
    import torch

    TAPS = (0.0020289646927, 0.0093894656748, -0.0255434587598, -0.0576573833823, 0.1285725831985, 0.4432097971439)

    def taps():
        half = torch.tensor(TAPS)
        return torch.cat([half, half.flip(0)]).view(1, 1, -1)
"""
RESAMPLE = """
    import torch
    import torch.nn.functional as F
    from .filter import taps

    class UpSample1d(torch.nn.Module):
        def __init__(self, ratio=2, kernel_size=None):
            super().__init__()
            self.register_buffer("filter", taps())

        def forward(self, x):
            f = self.filter.expand(x.shape[1], -1, -1)
            x = F.pad(x, (5, 5), mode="replicate")
            return 2 * F.conv_transpose1d(x, f, stride=2, groups=x.shape[1])[..., 15:-15]

    class LowPassFilter1d(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("filter", taps())

        def forward(self, x):
            x = F.pad(x, (5, 6), mode="replicate")
            return F.conv1d(x, self.filter.expand(x.shape[1], -1, -1), stride=2, groups=x.shape[1])

    class DownSample1d(torch.nn.Module):
        def __init__(self, ratio=2, kernel_size=None):
            super().__init__()
            self.lowpass = LowPassFilter1d()

        def forward(self, x):
            return self.lowpass(x)
"""
ACT = """
    import torch
    from .resample import DownSample1d, UpSample1d

    class Activation1d(torch.nn.Module):
        def __init__(self, activation, up_ratio=2, down_ratio=2, up_kernel_size=12, down_kernel_size=12):
            super().__init__()
            self.act = activation
            self.upsample = UpSample1d(up_ratio, up_kernel_size)
            self.downsample = DownSample1d(down_ratio, down_kernel_size)

        def forward(self, x):
            x = self.upsample(x)
            x = self.act(x)
            x = self.downsample(x)
            return x
"""
ACTIVATIONS = """
    import torch

    class Snake(torch.nn.Module):
        def __init__(self, in_features, alpha=1.0, alpha_trainable=True, alpha_logscale=False):
            super().__init__()
            self.alpha_logscale = alpha_logscale
            self.alpha = torch.nn.Parameter(torch.zeros(in_features) if alpha_logscale else torch.ones(in_features))

        def forward(self, x):
            alpha = self.alpha[None, :, None]
            if self.alpha_logscale:
                alpha = torch.exp(alpha)
            return x + (1.0 / (alpha + 1e-9)) * torch.sin(x * alpha) ** 2

    class SnakeBeta(Snake):
        def __init__(self, in_features, alpha=1.0, alpha_trainable=True, alpha_logscale=False):
            super().__init__(in_features, alpha, alpha_trainable, alpha_logscale)
            self.beta = torch.nn.Parameter(self.alpha.detach().clone())

        def forward(self, x):
            alpha, beta = self.alpha[None, :, None], self.beta[None, :, None]
            if self.alpha_logscale:
                alpha, beta = torch.exp(alpha), torch.exp(beta)
            return x + (1.0 / (beta + 1e-9)) * torch.sin(x * alpha) ** 2
"""
BIGVGAN = """
    import torch
    import activations
    from alias_free_activation.torch.act import Activation1d as TorchActivation1d

    class Net(torch.nn.Module):
        def __init__(self, channels=4, use_cuda_kernel=False, logscale=True):
            super().__init__()
            Activation1d = TorchActivation1d
            if use_cuda_kernel:
                from alias_free_activation.cuda.activation1d import Activation1d
            self.acts = torch.nn.ModuleList(
                Activation1d(activation=a(channels, alpha_logscale=logscale))
                for a in (activations.Snake, activations.SnakeBeta)
            )

        def forward(self, x):
            for act in self.acts:
                x = act(x)
            return x
"""
PACKAGE = "alias_free_activation"
PROJECT = {
    f"{PACKAGE}/__init__.py": "",
    f"{PACKAGE}/torch/__init__.py": "from .act import Activation1d",
    f"{PACKAGE}/torch/filter.py": FILTER,
    f"{PACKAGE}/torch/resample.py": RESAMPLE,
    f"{PACKAGE}/torch/act.py": ACT,
    f"{PACKAGE}/cuda/__init__.py": "",
    f"{PACKAGE}/cuda/activation1d.py": "raise RuntimeError('importing would compile a plugin')",
    "activations.py": ACTIVATIONS,
    "bigvgan.py": BIGVGAN,
}
