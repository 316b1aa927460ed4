"""Times the CPU kernels of two builds against each other: python bench/compare_builds.py OLD/_C.abi3.so [NEW/_C.abi3.so]

Without NEW: the library of this fastgan. Two processes, one for each library, take turns at every case; the least of many turns
counts, in time of the CPU, so that what else runs on the machine disturbs little and both alike. A ratio above 1: the new one is
slower. One thread.
"""

import argparse
import importlib.util
import itertools
import math
import subprocess
import sys
import time
from pathlib import Path

SECONDS = 0.02  # of one turn


def cases():
    """(name, call) of every kernel: sizes of networks and, for what a call costs, small ones."""
    import torch

    from fastgan import ops

    f = ops.setup_filter([1.0, 3, 3, 1])
    layouts = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}
    shapes = ((8, 64, 4, 4), (4, 64, 32, 32), (2, 64, 128, 128))
    dtypes = (torch.float32, torch.bfloat16)
    for shape, (layout, form), dtype in itertools.product(shapes, layouts.items(), dtypes):
        x = torch.randn(shape).to(dtype).contiguous(memory_format=form)
        b = torch.randn(shape[1]).to(dtype)
        dy, what = torch.randn_like(x), f"{tuple(shape)} {layout} {str(dtype)[6:]}"
        mean, rstd = (torch.randn(shape[:2]).abs() + 0.1 for _ in range(2))
        for act in ("linear", "relu", "lrelu", "tanh", "softplus", "swish"):
            a = (1, act, 0.2, 1.0, -1.0)
            yield f"bias_act {act} {what}", lambda x=x, b=b, a=a: torch.ops.fastgan.bias_act(x, b, *a)
            yield (
                f"bias_act_backward {act} {what}",
                lambda x=x, b=b, dy=dy, a=a: torch.ops.fastgan.bias_act_backward(dy, x, b, *a, True),
            )
            yield (
                f"norm_act {act} {what}",
                lambda x=x, b=b, a=a: torch.ops.fastgan.norm_act(x, b, b, x, a[1], 0.2, 1e-5),
            )
            yield (
                f"norm_act_backward {act} {what}",
                lambda x=x, b=b, dy=dy, m=mean, r=rstd, a=a: torch.ops.fastgan.norm_act_backward(
                    dy, x, b, b, m, r, a[1], 0.2, 1e-5
                ),
            )
        for name, options in {
            "blur": dict(padding=(2, 1)),
            "up": dict(up=2, padding=(2, 1), gain=4),
            "down": dict(down=2, padding=1),
        }.items():
            yield f"upfirdn2d {name} {what}", lambda x=x, o=options: ops.upfirdn2d(x, f, impl="cpp", **o)
        for up, down in ((2, 2), (4, 2), (1, 1)):
            fu, fd = torch.rand(6 * up) / 6, torch.rand(6 * down) / 12
            o = dict(up=up, down=down, padding=3 * up + 3 * down - 1, clamp=256)
            yield (
                f"filtered_lrelu {up} {down} {what}",
                lambda x=x, b=b, fu=fu, fd=fd, o=o: ops.filtered_lrelu(x, fu, fd, b, impl="cpp", **o),
            )


def serve(library: str) -> None:
    """Answers the name of each case with the seconds of one call, the least of a turn."""
    import torch

    spec = importlib.util.spec_from_file_location("fastgan._C", library)
    sys.modules["fastgan._C"] = importlib.util.module_from_spec(spec)  # before fastgan looks for its own
    spec.loader.exec_module(sys.modules["fastgan._C"])
    torch.set_num_threads(1)
    known = dict(cases())
    print(*known, sep="\t", flush=True)
    for line in sys.stdin:
        call, least, until = known[line.strip()], float("inf"), time.perf_counter() + SECONDS
        while time.perf_counter() < until:
            start = time.thread_time()
            call()
            least = min(least, time.thread_time() - start)
        print(least, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old")
    parser.add_argument("new", nargs="?", default=str(Path(__file__).parents[1] / "fastgan" / "_C.abi3.so"))
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve:
        return serve(chosen.old)
    command = [sys.executable, __file__, "--serve"]
    builds = [
        subprocess.Popen([*command, library], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        for library in (chosen.old, chosen.new)
    ]
    names, _ = (build.stdout.readline().strip().split("\t") for build in builds)
    ratios: dict[str, list[float]] = {}
    for name in (name for name in names if chosen.only in name):
        least = [float("inf")] * 2
        for _ in range(chosen.turns):
            for i, build in enumerate(builds):
                print(name, file=build.stdin)
                least[i] = min(least[i], float(build.stdout.readline()))
        ratios.setdefault(" ".join(name.split()[:2]), []).append(least[1] / least[0])
        print(f"{least[1] / least[0]:5.2f}  {least[0] * 1e6:9.1f} us {least[1] * 1e6:9.1f} us  {name}", flush=True)
    for build in builds:
        build.stdin.close()
        build.wait()
    for op, found in ratios.items():
        print(f"{math.prod(found) ** (1 / len(found)):5.2f}  worst {max(found):5.2f}  {op}")


if __name__ == "__main__":
    main()
