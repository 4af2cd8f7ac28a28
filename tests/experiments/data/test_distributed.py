"""Two processes on gloo take the shares that one process would take at twice the batch size."""

import os
import socket

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from experiments.data.synthetic import Synthetic

SMALL = {"train_size": 70, "test_size": 33, "val_size": 9, "image_size": 8, "augment": True}


def collect(rank, port, folder):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=2)
    torch.save(epoch(batch_size=4), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def epoch(batch_size):
    data = Synthetic(**SMALL, batch_size=batch_size)
    data.setup()
    train = data.train_dataloader()
    train.set_epoch(2)
    return list(train), list(data.test_dataloader())


def test_two_processes_see_together_what_one_sees(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.start_processes(collect, (port, tmp_path), nprocs=2, start_method="fork")
    train, test = epoch(batch_size=8)
    (train0, test0), (train1, test1) = (torch.load(tmp_path / f"{r}.pt") for r in range(2))
    for one, two in ((train, (train0, train1)), (test, (test0, test1))):
        for whole, left, right in zip(one[: len(two[0])], *two, strict=True):
            images, labels = (torch.cat([a, b]) for a, b in zip(left, right, strict=True))
            assert torch.equal(images[: len(whole[0])], whole[0])
            assert torch.equal(labels[: len(whole[1])], whole[1])
    assert sum(len(y) for _, y in test0 + test1) == 33
