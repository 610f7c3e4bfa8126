"""What a figure was measured on."""

import os
import platform

import torch


def machine(device: torch.device | str = "cpu") -> str:
    """One line on a machine, such as `2 cores of AMD EPYC 9654` or `NVIDIA H100 80GB HBM3`.

    Args:
        device (`torch.device` or `str`, defaults to `"cpu"`): What computed.
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            name = next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    # those that this process may use, of those that are there
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores of {name}"


__all__ = ["machine"]
