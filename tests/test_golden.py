import pytest
from golden import GOLDEN


def test_golden_vectors():
    if not GOLDEN.is_dir():
        pytest.skip(
            f"no golden vectors in {GOLDEN} (FASTGAN_GOLDEN names another folder): the tests that compare with other projects' "
            "recorded numbers are left out; every op and network is tested against its definition all the same"
        )
    assert list((GOLDEN / "ops").glob("*.npz")) and list((GOLDEN / "models").glob("*.npz"))
