"""What exporting a network must give: the numbers of the network itself, with no fastgan op left in the ONNX file."""

import onnxruntime
import torch
from tolerances import assert_close

from fastgan.ops import decompositions


def check_export(network: torch.nn.Module, *args: torch.Tensor, tolerance: float = 2e-5, **kwargs) -> None:
    """`torch.export` of network(*args, **kwargs), run by torch and, as ONNX, by onnxruntime; kwargs are constants."""
    network = network.eval().requires_grad_(False)
    expected = network(*args, **kwargs)
    program = torch.export.export(network, args, kwargs)
    assert_close(program.module()(*args, **kwargs), expected, tolerance)
    plain = program.run_decompositions(decompositions())
    assert not any(str(node.target).startswith("fastgan") for node in plain.graph.nodes)
    model = torch.onnx.export(plain, verbose=False).model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    feed = {i.name: t.cpu().numpy() for i, t in zip(session.get_inputs(), args, strict=True)}
    (actual,) = session.run(None, feed)
    assert_close(torch.from_numpy(actual).to(expected.device), expected, tolerance)
