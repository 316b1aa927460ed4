import pytest
from derivatives import derivatives
from golden import golden_cases
from tolerances import assert_close

from fastgan.ops import modulated_conv2d

GROUPED, SHARED = "reference", "auto"


def stylegan2(impl, case, tensors):
    options = {k: v for k, v in case["kwargs"].items() if k != "fused_modconv"}
    options |= dict(noise=tensors.get("noise"), resample_filter=tensors.get("resample_filter"))
    return lambda x, weight, styles: modulated_conv2d(x, weight, styles, impl=impl, **options)


def stylegan3(impl, case, tensors):
    options = dict(case["kwargs"])
    if isinstance(options.get("padding"), list):
        options["padding"] = options["padding"][::-1]  # recorded as [y, x]
    gain = tensors.get("input_gain")
    return lambda x, w, s: modulated_conv2d(x, w, s, prenormalize=True, input_gain=gain, impl=impl, **options)


@pytest.mark.parametrize("impl", [GROUPED, SHARED])
@pytest.mark.parametrize(("case", "tensors"), golden_cases("modulated_conv2d"))
def test_golden(case, tensors, impl):
    if case["op"] == "modulated_conv2d_sg2":
        names, f = ("x", "weight", "styles"), stylegan2(impl, case, tensors)
    else:
        names, f = ("x", "w", "s"), stylegan3(impl, case, tensors)
    inputs = {name: tensors[name] for name in names}
    tolerance = 1e-10 if case.get("filter_gain_exact_in_float32", True) else 1e-6
    for name, value in derivatives(f, inputs, tensors["gy"], tensors["v"], "x").items():
        assert_close(value, tensors[name], tolerance)
    style = names[2]
    found = derivatives(f, inputs, tensors["gy"], tensors[f"v_{style}"], style)
    for name in (*names, "gy"):
        assert_close(found[f"ds_{name}"], tensors[f"ds_{style}__{name}"], tolerance)
