"""Levels of rectangles, and what the refusal of another size advises."""

import random
import re

import numpy as np
import pytest

from fastgan.sizes import at_level, check_levels, nominal, resolution_of, sides


@pytest.mark.parametrize(
    "resolution, base",
    [(32, (4, 4)), (256, (4, 4)), ((96, 160), (6, 10)), ((160, 96), (10, 6)), ((60, 100), None), ((64, 256), (4, 16))],
)
def test_the_base_is_what_the_halvings_leave(resolution, base):
    if base is None:
        with pytest.raises(ValueError):
            check_levels("net", resolution, 4)
        return
    assert check_levels("net", resolution, 4) == resolution
    assert at_level(resolution, 4) == base and 4 <= min(base) < 8
    assert at_level(resolution, nominal(resolution)) == sides(resolution)


def test_squares_are_one_number():
    assert check_levels("net", (64, 64), 4) == 64 and resolution_of(*sides(64)) == 64
    assert check_levels("net", [96, 160], 4) == (96, 160)
    assert check_levels("net", np.int64(64), 4) == 64


@pytest.mark.parametrize(
    "resolution, limits, message",
    [
        (
            48,
            (32, 256),
            r"net: resolution is 48, expected 32, 64, 128 or 256, or \(height, width\): give resolution=32$",
        ),
        (28, (8,), r"resolution is 28, expected a power of two, at least 8, .*: give resolution=32$"),
        (2, (4, 8192), r"resolution is 2, expected a power of two from 4 to 8192, .*: give resolution=4$"),
        ((90, 160), (4,), r"\(90, 160\), expected multiples of 16 in height and width.*give resolution=\(96, 160\)$"),
        ((160, 90), (4,), r"\(160, 90\), expected multiples of 16 .*give resolution=\(160, 96\)$"),
        (
            (16, 160),
            (32, 256),
            r"expected multiples of 8 .*the shorter has 32 to 511 pixels: give resolution=\(32, 160\)$",
        ),
        ((600, 800), (32, 256), r"expected multiples of 64 .*the shorter has 32 to 511 pixels: give resolution="),
        ((96, 160), (4, 8192, "it is so"), r"expected a square, since it is so: give resolution=128$"),
        (True, (4,), "resolution is True, expected a whole number or "),
        ((8, 8, 8), (4,), r"resolution is \(8, 8, 8\), expected a whole number or \(a whole number, a whole number\)"),
        ("64", (4,), "resolution is '64'"),
    ],
)
def test_other_sizes_are_refused(resolution, limits, message):
    with pytest.raises(ValueError, match=message):
        check_levels("net", resolution, *limits)


def test_what_is_advised_works():
    draw = random.Random(0)
    for _ in range(500):
        limits = draw.choice([(32, 256), (8,), (4, 8192), (32,), (4, 8192, "so")])
        size = draw.choice([1, 30, 300, 3000])
        try:
            check_levels("net", (draw.randint(-2, size), draw.randint(-2, size)), *limits)
        except ValueError as error:
            advised = re.search(r"give resolution=(?:(\d+)|\((\d+), (\d+)\))$", str(error)).groups()
            square, height, width = (part and int(part) for part in advised)
            advised = square or (height, width)
            assert check_levels("net", advised, *limits) == advised
