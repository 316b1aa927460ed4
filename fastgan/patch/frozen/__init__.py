"""The serving form of a network on the CPU: `fastgan.accelerate(network.eval(), freeze=True)`.

A call is recorded as the operations it does (tape.py), and made into a function with what can be done once done once (plan.py,
convolutions.py); module.py decides when that function may stand in for the network.
"""

from fastgan.patch.frozen.module import Frozen

__all__ = ["Frozen"]
