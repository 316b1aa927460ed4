"""An op as a plain eager call takes it: its kernel beneath autograd, and one `autograd.Function` of the gradient it was defined
with. `torch.library.register_autograd` costs bias_act 3 us more without a gradient, 10 us with one, 13 us with its backward
pass; what looks into an op, compilers, exporters, transforms and dispatch modes, needs it.
"""

import types
from collections.abc import Callable

import torch

from fastgan._torch_private import below_autograd

PLAIN = {torch.Tensor, torch.nn.Parameter}  # others have rules of their own, which the dispatcher knows


def eager_call(
    registered: torch._ops.OpOverload,
    kernels: dict[str, Callable],
    setup_context: Callable | None,
    backward: Callable | None,
) -> Callable:
    """The function that computes `registered` for plain tensors, differentiable by `backward`; others go to `registered`.

    kernels: per type of device, what computes it in Python, without the dispatcher; elsewhere the dispatcher chooses.
    """
    tensors = [i for i, a in enumerate(registered._schema.arguments) if "Tensor" in str(a.type)]

    def forward(*arguments):
        if kernels and (kernel := kernels.get(arguments[0].device.type)):
            return kernel(*arguments)
        with below_autograd():
            return registered(*arguments)

    def forward_with_context(ctx, *arguments):
        output = forward(*arguments)
        setup_context(ctx, arguments, output)
        return output

    # A profiler and a printed tensor show its name.
    methods = {"forward": staticmethod(forward_with_context), "backward": staticmethod(backward)}
    function = types.new_class(
        registered.name(), (torch.autograd.Function,), exec_body=lambda body: body.update(methods)
    )

    def call(*arguments):
        differentiable = False
        for i in tensors:
            if (t := arguments[i]) is not None:
                if type(t) not in PLAIN:
                    return registered(*arguments)
                differentiable = differentiable or t.requires_grad
        if not differentiable or not torch.is_grad_enabled():
            return forward(*arguments)
        return function.apply(*arguments) if backward else registered(*arguments)

    return call
