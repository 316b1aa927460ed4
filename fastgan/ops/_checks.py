"""Argument checks shared by the ops: a wrong argument raises here, before any kernel runs."""

import contextlib

import torch

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
NUMBERS = (int, float)


def check_floating(op: str, name: str, x: object) -> None:
    """TypeError unless x is a tensor of float16, bfloat16, float32 or float64."""
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"{op}: {name} is {type(x).__name__}; expected a torch.Tensor")
    if x.dtype not in FLOATS:
        raise TypeError(f"{op}: {name} has dtype {x.dtype}; expected float16, bfloat16, float32 or float64")


def check_like(op: str, name: str, t: torch.Tensor, x: torch.Tensor, *, dtype: bool = True) -> None:
    """ValueError / TypeError unless t is on the device (and has the dtype) of x."""
    if t.device != x.device:
        raise ValueError(f"{op}: {name} is on {t.device}; expected {x.device}, the device of the input")
    if dtype and t.dtype != x.dtype:
        raise TypeError(f"{op}: {name} has dtype {t.dtype}; expected {x.dtype}, the dtype of the input")


def check_number(op: str, name: str, value: object, default: float | None = None) -> float:
    """value as a float, `default` for None if there is one; TypeError unless it is a number, and for a tensor whose gradient
    would be lost."""
    if isinstance(value, NUMBERS):
        return float(value)
    if value is None and default is not None:
        return default
    expected = "a number" if default is None else "None or a number"
    if isinstance(value, torch.Tensor) and value.requires_grad and torch.is_grad_enabled():
        raise TypeError(
            f"{op}: {name} is a tensor that requires a gradient, and this argument has none; expected {expected}"
        )
    if hasattr(value, "__float__"):  # a string has none
        with contextlib.suppress(TypeError, ValueError, RuntimeError):  # several numbers
            return float(value)
    raise TypeError(f"{op}: {name}={value!r}; expected {expected}")


def check_integer(op: str, name: str, value: object) -> None:
    """TypeError unless value is an integer."""
    if isinstance(value, bool | torch.Tensor) or not hasattr(value, "__index__"):
        raise TypeError(f"{op}: {name}={value!r}; expected an integer")


def check_rank(op: str, name: str, t: torch.Tensor, rank: int) -> None:
    """ValueError unless t has `rank` dimensions."""
    if t.dim() != rank:
        raise ValueError(f"{op}: {name} has shape {tuple(t.shape)}; expected {rank} dimensions")


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype sums and intermediate results are kept in: float32, or float64 for float64."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def in_dtype(t: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """t.to(dtype), which takes the host 0.7 us even where t has that dtype."""
    return t if t.dtype == dtype else t.to(dtype)
