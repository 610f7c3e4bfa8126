"""Processes that work together: which of them this is, and starting some on this machine."""

import logging
import os
from collections.abc import Callable
from typing import Any

# by torchrun, and by the ways of mpirun
_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def launched():
    """Which process this is of those that torchrun, `accelerate launch` or mpirun started.

    Returns:
        `accelerate.utils.environment.CPUInformation`: `rank` of `world_size`, and `local_rank` on this machine; 0 of 1
        where nothing was launched.

    Raises:
        ValueError: If `accelerate launch` was told to start several processes and started this one alone, as it does
            on CPUs.
    """
    from accelerate.utils import get_cpu_distributed_information

    several = "ACCELERATE_DYNAMO_MODE" in os.environ and "MASTER_ADDR" in os.environ
    if several and not any(name in os.environ for name in _SIZES):
        raise ValueError(
            "`accelerate launch` must start the processes it was told of; it started one, as it does on CPUs without "
            "an `--mpirun_hostfile`. Use torchrun --nproc_per_node, or `--multi_gpu` even on CPUs."
        )
    return get_cpu_distributed_information()


def own_device(device: str, local_rank: int) -> str:
    """The GPU of one of several processes on a machine, where nobody chose one; with a single GPU all share it.

    Args:
        device (`str`): What was asked for; only `"auto"` is answered otherwise.
        local_rank (`int`): Number of the process on its machine.
    """
    import torch

    count = torch.cuda.device_count()
    return f"cuda:{local_rank % count}" if device == "auto" and count > 1 else device


def run_together(function: Callable[..., Any], count: int, *arguments: Any) -> list[Any]:
    """Call a function in several processes of this machine at once.

    After an error in one of them the others are ended; where this process is shot, they end too.

    Args:
        function (`Callable`): Importable by its name; given the number of its process, from 0, how many there are, and
            the arguments.
        count (`int`): How many processes; they share the threads that this one would have.
        arguments (`Any`): What pickle can carry.

    Returns:
        `list`: What each of them returned, in their order.

    Raises:
        Exception: What one of them raised.
        ChildProcessError: If one of them was shot.
    """
    from torch import multiprocessing

    told = multiprocessing.get_context("spawn").SimpleQueue()
    # it tells of every process that it ends
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
    try:
        multiprocessing.spawn(_work, (function, count, told, arguments), count)
    except multiprocessing.ProcessExitedException as ended:
        while not told.empty():
            _, outcome = told.get()
            if isinstance(outcome, Exception):
                raise outcome from None
        how = f"by {ended.signal_name}" if ended.signal_name else f"with exit code {ended.exit_code}"
        raise ChildProcessError(
            f"`workers` must all live to the end; number {ended.error_index + 1} of {count} was ended {how}. Repeat "
            "the command, with fewer of them where memory is short."
        ) from None
    return [outcome for _, outcome in sorted((told.get() for _ in range(count)), key=lambda pair: pair[0])]


def _work(number: int, function: Callable[..., Any], count: int, told, arguments: tuple) -> None:
    import torch

    threads = max(torch.get_num_threads() // count, 1)
    torch.set_num_threads(threads)
    # read by OpenCV when it is imported, and by `launched`
    os.environ |= {"OPENCV_FOR_THREADS_NUM": str(threads), "LOCAL_RANK": str(number)}
    try:
        told.put((number, function(number, count, *arguments)))
    except Exception as error:
        told.put((number, error))
        raise SystemExit(1) from None


__all__ = ["launched", "own_device", "run_together"]
