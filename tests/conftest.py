import pytest
import torch

# Two threads on a busy machine take several times as long as one.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
