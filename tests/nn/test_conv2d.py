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


@pytest.mark.parametrize("size", [(15, 23), (16, 24), [2, 6, 15, 23]])
def test_a_transposed_convolution_reaches_the_size_that_is_asked_for(size):
    """Whatever its output_padding is; a U-Net asks so for the size of what it joins."""
    options = dict(stride=(2, 3), padding=1, output_padding=(1, 2))
    module, original = (
        ConvTranspose2d(4, 6, 3, **options).double(),
        torch.nn.ConvTranspose2d(4, 6, 3, **options).double(),
    )
    module.load_state_dict(original.state_dict())
    x = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    y = module(x, output_size=size)
    assert list(y.shape[2:]) == list(size)[-2:]
    assert_close(y, original(x, output_size=size))


@pytest.mark.parametrize("size", [(14, 22), (17, 22), (15,), (2, 15, 22)])
def test_a_transposed_convolution_refuses_a_size_it_cannot_reach(size):
    module = ConvTranspose2d(4, 6, 3, stride=(2, 3), padding=1)
    with pytest.raises(ValueError, match=r"output_size=.*expected \[H, W\] from \[15, 22\] to \[16, 24\]"):
        module(torch.zeros(2, 4, 8, 8), size)
