"""Several processes, each with all networks, that share the work of an iteration (data parallelism).

`torchrun --nproc-per-node 2 train.py` or `accelerate launch train.py` starts them; nothing else differs. Each
samples and judges its share of the tasks, and computes its share of every forward and backward pass. What is
small is then exchanged: programs, verdicts, numbers per token. What is large, the gradients, is added up. As
the loss is divided by the tokens of all processes' rows, the sum is the gradient that one process would have
found, and all take the same step. Alone, every function here does nothing.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, distributed

Item = TypeVar("Item")


def join(device: torch.device | str = "cpu") -> None:
    """Find the other processes of this run, if a launcher started any; may be called again.

    Args:
        device: Where this process computes; of several GPUs each process takes its own.
    """
    if launched() < 2 or distributed.is_initialized():
        return
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group("nccl" if on_gpu else "gloo")


def launched() -> int:
    """How many processes a launcher started, whether or not they have found each other."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def leave() -> None:
    """Part from the other processes; a launched program should do so when it has finished."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def size() -> int:
    """How many processes share the work."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Which of them this one is; the first, 0, is the one that writes and shows things."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def share(items: Sequence[Item]) -> Sequence[Item]:
    """This process's run of the items; the runs of all, in order, are the items."""
    first, last = (len(items) * place // size() for place in (rank(), rank() + 1))
    return items[first:last]


def share_by_cost(items: Sequence[Item], cost: Callable[[Item], float]) -> Sequence[Item]:
    """This process's items, where every process is to have about as much to do."""
    return items if size() == 1 else sorted(items, key=cost)[rank() :: size()]


def gather(items: Sequence[Item]) -> list[Item]:
    """All processes' items, in the order of `share`."""
    if size() == 1:
        return list(items)
    parts: list[Sequence[Item]] = [()] * size()
    distributed.all_gather_object(parts, items)
    return [item for part in parts for item in part]


def add_up(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor, in place, by its sum over the processes."""
    if size() > 1:
        for tensor in tensors:
            distributed.all_reduce(tensor)


def add_up_numbers(numbers: Mapping[str, float]) -> dict[str, float]:
    """The sum over the processes, by name; a name that one of them lacks is 0 there."""
    total: dict[str, float] = {}
    for name, number in gather(list(numbers.items())):
        total[name] = total.get(name, 0.0) + number
    return total


def largest_numbers(numbers: Mapping[str, float]) -> dict[str, float]:
    """The largest over the processes, by name; those that lack a name have no say."""
    largest: dict[str, float] = {}
    for name, number in gather(list(numbers.items())):
        largest[name] = max(number, largest.get(name, number))
    return largest


def equalize(tensors: Iterable[Tensor]) -> None:
    """Give every process the first one's values, in place."""
    if size() > 1:
        for tensor in tensors:
            distributed.broadcast(tensor, src=0)


def wait_for_all() -> None:
    """Go on when every process has come here."""
    if size() > 1:
        distributed.barrier()
