"""Where `fastgan.files` used to be."""

from fastgan.files import check_writable as check_writable
from fastgan.files import complete as complete
from fastgan.files import writable as writable
