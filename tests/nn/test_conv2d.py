import pytest
import torch
from tolerances import assert_close

from fastgan.nn import Conv2d, ConvTranspose2d
from fastgan.ops import no_weight_gradients


@pytest.mark.parametrize(
    ("ours", "options"),
    [
        (Conv2d, dict(stride=2, padding=(1, 0), dilation=(1, 2), groups=2)),
        (Conv2d, dict(bias=False)),
        (ConvTranspose2d, dict(stride=2, padding=1, output_padding=(1, 0), groups=2)),
        (ConvTranspose2d, dict(stride=(3, 1), dilation=2, bias=False)),
    ],
)
def test_torchs_module_in_all_but_the_weight_gradients(ours, options):
    theirs = getattr(torch.nn, ours.__name__)
    torch.manual_seed(3)
    module = ours(4, 6, 3, **options).double()
    torch.manual_seed(3)
    original = theirs(4, 6, 3, **options).double()
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), original.parameters(), strict=True))
    module.load_state_dict(original.state_dict())
    x = torch.randn(2, 4, 8, 9, dtype=torch.float64, requires_grad=True)
    y = module(x)
    assert_close(y, original(x))
    with no_weight_gradients():
        y.sum().backward()
    assert module.weight.grad is None and x.grad.abs().sum() > 0


@pytest.mark.parametrize("options", [dict(padding="same"), dict(padding=1, padding_mode="reflect")])
def test_refuses_other_paddings(options):
    with pytest.raises(ValueError, match="expected numbers and 'zeros'"):
        Conv2d(2, 2, 3, **options)
