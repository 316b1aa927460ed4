"""Types of options, under the name by which recipes know them; `fastgan.options` says what each allows."""

from fastgan.options import Batch as Batch
from fastgan.options import Count as Count
from fastgan.options import Decay as Decay
from fastgan.options import Depth as Depth
from fastgan.options import Names as Names
from fastgan.options import Natural as Natural
from fastgan.options import NonNegative as NonNegative
from fastgan.options import Positive as Positive
from fastgan.options import Range as Range
from fastgan.options import Share as Share
from fastgan.options import Side as Side
from fastgan.options import check_ranges as check_ranges
