"""Seconds that `import hiva_hf` takes beside `import transformers`, in fresh interpreters that take turns.

python examples/benchmark_import.py
"""

import subprocess
import sys
from typing import Annotated

import typer

STATEMENTS = ("import transformers", "import transformers; import hiva_hf", "import hiva_hf")
TIMER = """
import time
wall, cpu = time.perf_counter(), time.process_time()
{}
print(time.perf_counter() - wall, time.process_time() - cpu)
"""


def main(rounds: Annotated[int, typer.Option(help="Interpreters for each statement.")] = 9):
    times = {statement: [] for statement in STATEMENTS}
    for _ in range(rounds):
        for statement in STATEMENTS:
            command = [sys.executable, "-c", TIMER.format(statement)]
            times[statement].append([float(x) for x in subprocess.check_output(command, text=True).split()])
    first = sorted(wall for wall, _ in times[STATEMENTS[0]])[rounds // 2]
    print(f"{'statement':40} {'wall s':>8} {'CPU s':>8} {'ratio':>8}   (medians of {rounds})")
    for statement, pairs in times.items():
        wall = sorted(pair[0] for pair in pairs)[rounds // 2]
        cpu = sorted(pair[1] for pair in pairs)[rounds // 2]
        print(f"{statement:40} {wall:8.3f} {cpu:8.3f} {wall / first:8.3f}")


if __name__ == "__main__":
    typer.run(main)
