"""Networks planned without memory."""

import pytest
import torch
from torch import nn

from fastgan.untrusted import BadFile
from fastgan.untrusted.blueprint import check_fit, within


def lazy(inputs):
    network = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    network(torch.zeros(1, inputs))
    return network


def test_layers_that_find_their_size_in_a_first_call():
    held = lazy(5).state_dict()
    with within(held.values(), "config"):
        planned = lazy(5)
    check_fit(planned, held, "file")
    with within(held.values(), "config"):
        planned = lazy(6)
    with pytest.raises(BadFile, match=r"1.weight is \[3, 5\], expected \[3, 6\]"):
        check_fit(planned, held, "file")


def test_more_than_the_file_holds():
    with (
        pytest.raises(BadFile, match="ask for more than the file's 1 tensors of 4 numbers"),
        within([torch.zeros(4)], "x"),
    ):
        nn.Linear(1000, 2000)
