"""Activations and their derivatives for Triton, float32 and float64: the table of csrc/activation.h.

Only arithmetic, exp and comparisons, which compile and interpret alike. ACT is the activation's name, a constexpr.
"""

import math

import triton
import triton.language as tl

SELU_SCALE = tl.constexpr(1.0507009873554805)
SELU_ALPHA = tl.constexpr(1.6732632423543772)


@triton.jit
def wide(high, low, like):
    """A Python float in the dtype of `like`. Triton passes floats as float32; the rest (high = float32(v), low = v -
    high) gives float64 kernels 48 bits of it."""
    if like.dtype == tl.float64:
        return tl.cast(high, tl.float64) + tl.cast(low, tl.float64)
    else:  # not after the `if`: Triton joins the types of all returns it reads
        return tl.cast(high, tl.float32)


@triton.jit
def clipped(v, limit):
    v = tl.maximum(v, -limit, propagate_nan=tl.PropagateNan.ALL)
    return tl.minimum(v, limit, propagate_nan=tl.PropagateNan.ALL)


@triton.constexpr_function
def _inverse_factorial(n):
    return 1 / math.factorial(n)


@triton.jit
def expm1_nonpositive(x):
    """e^x - 1 for x <= 0: the Taylor series down to -0.35, where e^x - 1 would cancel. First term left out, relative to
    the result: 0.35^8 / 9! = 6e-10 for float32, 0.35^14 / 15! = 3e-19 for float64."""
    TERMS: tl.constexpr = 14 if x.dtype == tl.float64 else 8
    near = tl.maximum(x, -0.35)
    p = tl.zeros_like(x) + _inverse_factorial(TERMS)
    for i in tl.static_range(1, TERMS):
        p = p * near + _inverse_factorial(TERMS - i)
    return tl.where(x > -0.35, near * p, tl.exp(x) - 1)


@triton.jit
def log1p_unit(z):
    """log(1 + z) for 0 <= z <= 1, as 2 artanh(s) with s = z / (2 + z) <= 1/3; first term left out: 9^-8 / 17 = 1e-9 of
    the result for float32, 9^-17 / 35 = 2e-18 for float64."""
    TERMS: tl.constexpr = 17 if z.dtype == tl.float64 else 8
    s = z / (2 + z)
    square = s * s
    p = tl.zeros_like(z)
    for i in tl.static_range(TERMS):
        p = p * square + 1.0 / (2 * (TERMS - i) - 1)
    return 2 * s * p


@triton.jit
def log_normal(x):
    """log x of a normal x > 0. In float32 16 instructions, where tl.log takes 25 to see to every x: x = 2^e (1 + f) with
    sqrt(1/2) <= 1 + f < sqrt(2), log(1 + f) = f - f^2 / 2 + f^3 q(f), q a Chebyshev fit: within 2e-7 of the result."""
    if x.dtype == tl.float64:
        return tl.log(x)
    else:
        bits = x.to(tl.int32, bitcast=True)
        e = (bits - 0x3F3504F3) & -0x800000  # e times 2^23; the number is sqrt(1/2)
        f = (bits - e).to(tl.float32, bitcast=True) - 1
        q = f * 0.09272214025259018 - 0.1411842554807663
        q = q * f + 0.14676396548748016
        q = q * f - 0.16592855751514435
        q = q * f + 0.19985127449035645
        q = q * f - 0.2500092089176178
        q = q * f + 0.3333340883255005
        q = q * f - 0.5
        return e.to(tl.float32) * 8.262958294867817e-08 + (f * f * q + f)  # ln 2 / 2^23


@triton.jit
def tanh(t):
    """float32: below 0.6 t + t^3 q(t^2), q a Chebyshev fit, within 1e-7 of the result; above, where nothing cancels, by e^2t.
    float64: by e^-2|t| - 1."""
    if t.dtype == tl.float64:
        em1 = expm1_nonpositive(-2 * tl.abs(t))
        u = em1 / (em1 + 2)
        return tl.where(t > 0, -u, u)
    else:
        z = t * t
        q = z * -0.006276390049606562 + 0.021116215735673904
        q = q * z - 0.053875137120485306
        q = q * z + 0.13332924246788025
        q = q * z - 0.3333333134651184
        return tl.where(tl.abs(t) < 0.6, t * (q * z) + t, 1 - 2 / (tl.exp(2 * t) + 1))


@triton.jit
def sigmoid(t):
    e = tl.exp(-tl.abs(t))
    return tl.where(t > 0, 1, e) / (1 + e)


@triton.jit
def activate(t, alpha, ACT: tl.constexpr):
    """act(t)"""
    if ACT == "relu":
        return tl.maximum(t, 0.0, propagate_nan=tl.PropagateNan.ALL)
    elif ACT == "lrelu":
        return tl.where(t > 0, t, t * alpha)
    elif ACT == "tanh":
        return tanh(t)
    elif ACT == "sigmoid":
        return sigmoid(t)
    elif ACT == "elu":
        return tl.where(t > 0, t, expm1_nonpositive(tl.where(t > 0, 0, t)))
    elif ACT == "selu":
        below = SELU_ALPHA * expm1_nonpositive(tl.where(t > 0, 0, t))
        return SELU_SCALE * tl.where(t > 0, t, below)
    elif ACT == "softplus":
        return tl.where(t > 20, t, tl.where(t > 0, t, 0) + log1p_unit(tl.exp(-tl.abs(t))))
    elif ACT == "swish":
        return t * sigmoid(t)
    else:
        return t


@triton.jit
def derivative(s, alpha, ACT: tl.constexpr):
    """act'(t) from s = act(t), or from s = t where the activation saves its input"""
    if ACT == "relu":
        return tl.where(s <= 0, 0, tl.zeros_like(s) + 1)
    elif ACT == "lrelu":
        return tl.where(s > 0, tl.zeros_like(s) + 1, alpha)
    elif ACT == "tanh":
        return 1 - s * s
    elif ACT == "sigmoid":
        return s * (1 - s)
    elif ACT == "elu":
        return tl.where(s > 0, 1, s + 1)
    elif ACT == "selu":
        return tl.where(s > 0, SELU_SCALE, s + SELU_SCALE * SELU_ALPHA)
    elif ACT == "softplus":
        return tl.where(s > 20, 1, -expm1_nonpositive(tl.where(s > 20, 0, -s)))
    elif ACT == "swish":
        sg = sigmoid(s)
        return sg * (1 + s * (1 - sg))
    else:
        return tl.zeros_like(s) + 1


@triton.jit
def times_derivative(v, s, alpha, ACT: tl.constexpr):
    """v act'(t); 0 where relu is off, whatever v is: not NaN where it is infinite."""
    product = v * derivative(s, alpha, ACT)
    return tl.where(s <= 0, 0, product) if ACT == "relu" else product
