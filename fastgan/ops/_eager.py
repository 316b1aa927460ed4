"""An op as a plain eager call takes it: its kernel beneath autograd, and one `autograd.Function` of the gradient it was defined
with. `torch.library.register_autograd` costs 3 us more without a gradient, 12 us with one and 25 us with a backward pass
(bench/bench_host_cost.py); what looks into an op, compilers, exporters, transforms and dispatch modes, needs it.
"""

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

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *arguments):
            output = forward(*arguments)
            setup_context(ctx, arguments, output)
            return output

        @staticmethod
        def backward(ctx, *grads):
            return backward(ctx, *grads)

    Function.__name__ = registered.name()  # what a profiler and a printed tensor show

    def call(*arguments):
        differentiable = False
        for i in tensors:
            if (t := arguments[i]) is not None:
                if type(t) not in PLAIN:
                    return registered(*arguments)
                differentiable = differentiable or t.requires_grad
        if not differentiable or not torch.is_grad_enabled():
            return forward(*arguments)
        return Function.apply(*arguments) if backward else registered(*arguments)

    return call
