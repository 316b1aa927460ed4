"""A Triton driver for a machine without a GPU: whatever is launched is specialised and compiled as on the GPU named, down to
machine code; the launch itself does nothing, so results are memory as it came."""

from types import SimpleNamespace

from triton.backends.compiler import GPUTarget
from triton.runtime import driver

SHARED = {80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}  # KiB a block may ask for
REGISTERS, SPILLS, THREADS = 32, 0, 1024


class Driver:
    """What triton 3.6 to 3.9 ask of the active driver between a call and its launch."""

    def __init__(self, arch: int):
        self.arch, self.compiled = arch, 0
        self.utils = SimpleNamespace(
            get_device_properties=lambda device: {"max_shared_mem": SHARED[arch] * 1024},
            load_binary=self._load_binary,
            unload_module=lambda module: None,
        )

    def launcher_cls(self, source, metadata):
        return lambda *arguments: None

    def _load_binary(self, name, binary, shared, device):
        assert len(binary) > 0
        self.compiled += 1
        return name, name, REGISTERS, SPILLS, THREADS

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.arch, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def activate(arch: int) -> Driver:
    """Makes a driver for GPUs of compute capability `arch` / 10 the one that every launch of this process meets."""
    stub = Driver(arch)
    driver.set_active(stub)
    return stub
