"""Sources of small packages in the shape of other projects, written from their public interfaces."""

# An operation of a stand-in compiles when it is called: what must not happen any more.
PLUGIN = """
    def compile_plugin(name):
        raise RuntimeError("a plugin would be compiled: " + name)
"""


def stylegan_package(helper: str = PLUGIN, gradfix: str = "") -> dict[str, str]:
    """torch_utils in StyleGAN's shape. `helper`: source of the build helper; `gradfix`: what conv2d_gradfix imports."""
    modules = {
        "bias_act": {"bias_act": "x, b=None, dim=1, act='linear', alpha=None, gain=None, clamp=None, impl='cuda'"},
        "upfirdn2d": {
            "setup_filter": "f, device='cpu', normalize=True, flip_filter=False, gain=1, separable=None",
            "upfirdn2d": "x, f, up=1, down=1, padding=0, flip_filter=False, gain=1, impl='cuda'",
            "filter2d": "x, f, padding=0, flip_filter=False, gain=1, impl='cuda'",
            "upsample2d": "x, f, up=2, padding=0, flip_filter=False, gain=1, impl='cuda'",
            "downsample2d": "x, f, down=2, padding=0, flip_filter=False, gain=1, impl='cuda'",
        },
        "filtered_lrelu": {
            "filtered_lrelu": "x, fu=None, fd=None, b=None, up=1, down=1, padding=0, gain=1.4, slope=0.2, clamp=None,"
            " flip_filter=False, impl='cuda'"
        },
        "conv2d_gradfix": {
            "conv2d": "input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1",
            "conv_transpose2d": "input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1",
            "no_weight_gradients": "",
        },
        "conv2d_resample": {
            "conv2d_resample": "x, w, f=None, up=1, down=1, padding=0, groups=1, flip_weight=True, flip_filter=False"
        },
        "fma": {"fma": "a, b, c"},
        "grid_sample_gradfix": {"grid_sample": "input, grid"},
    }
    files = {"torch_utils/__init__.py": "", "torch_utils/ops/__init__.py": "", "torch_utils/build_helper.py": helper}
    files["torch_utils/misc.py"] = "def assert_shape(x, shape): pass"
    for stem, functions in modules.items():
        source = f"{gradfix if stem == 'conv2d_gradfix' else ''}\nfrom .. import build_helper\nenabled = False\n"
        for name, parameters in functions.items():
            source += f"def {name}({parameters}):\n    return build_helper.compile_plugin({name!r})\n"
        files[f"torch_utils/ops/{stem}.py"] = source
    return files
