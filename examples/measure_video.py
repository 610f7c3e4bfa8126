"""How fast a video is read, where the time goes, and whether memory grows over an hour.

    python examples/measure_video.py --checkpoint DIR
    python examples/measure_video.py --checkpoint DIR --minutes 60 --every 25
    python examples/measure_video.py --checkpoint DIR --peer "python their_script.py {video}"

Without `--video` a rendered face moves over a textured background, 640x360. Everything that `hiva predict` does is
done, and timed from outside: decoding, searching and following the face, cropping, the model, writing the rows.
"""

import shlex
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import av
import numpy as np
import torch
import typer
from PIL import Image, ImageFilter
from rich.console import Console
from rich.table import Table

import hiva_hf.detector
import hiva_hf.prediction
from hiva_hf import ActionUnitDetector
from hiva_hf.data import load_rendered
from hiva_hf.faces import Face, FaceDetector
from hiva_hf.prediction import predict_sources
from hiva_hf.results import ResultFile

WIDTH, HEIGHT, FACE = 640, 360, 180
# seconds of pictures that a long video repeats
LOOP = 10


def make_video(path: Path, seconds: float, rate: int) -> Path:
    """A video of one face; its first seconds are encoded, and their packets repeated."""
    generator = np.random.default_rng(0)
    noise = Image.fromarray(generator.integers(0, 256, (HEIGHT // 4, WIDTH // 4, 3), dtype=np.uint8))
    background = noise.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(2))
    dataset = load_rendered()
    # one person's 25 expressions
    faces = [dataset[i]["image"].convert("RGB").resize((FACE, FACE), Image.Resampling.BICUBIC) for i in range(25)]
    count = round(min(seconds, LOOP) * rate)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"preset": "veryfast", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.time_base = Fraction(1, rate)
        packets = []
        for index in range(count):
            turn = 2 * np.pi * index / count
            frame = background.copy()
            place = WIDTH / 2 + 200 * np.sin(turn) - FACE / 2, HEIGHT / 2 + 60 * np.sin(2 * turn) - FACE / 2
            frame.paste(faces[index * len(faces) // count], (round(place[0]), round(place[1])))
            packets += stream.encode(av.VideoFrame.from_image(frame))
        packets += stream.encode(None)
        ticks = round(1 / (rate * packets[0].time_base))
        contents = [(bytes(p), p.is_keyframe, p.time_base) for p in packets]
        for number in range(round(seconds * rate)):
            content, is_keyframe, time_base = contents[number % count]
            packet = av.Packet(content)
            packet.pts = packet.dts = number * ticks
            packet.time_base, packet.is_keyframe, packet.stream = time_base, is_keyframe, stream
            container.mux(packet)
    return path


def memory() -> float:
    """MiB that this process holds."""
    try:
        import psutil
    except ImportError:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * 4096 / 2**20
    return psutil.Process().memory_info().rss / 2**20


class Clock:
    """Seconds by stage, taken around the real objects."""

    def __init__(self):
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Add the time of what stands inside."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - begin

    def wrap(self, stage: str, function: Callable) -> Callable:
        """The same function, timed."""

        def timed(*args, **kwargs):
            with self(stage):
                return function(*args, **kwargs)

        return timed

    def each(self, stage: str, function: Callable[..., Iterator]) -> Callable[..., Iterator]:
        """The same generator, timed while it makes the next one."""

        def timed(*args, **kwargs):
            items = function(*args, **kwargs)
            while True:
                with self(stage):
                    item = next(items, None)
                if item is None:
                    return
                yield item

        return timed


class TimedFaces:
    """A face detector, timed, that can follow where the real one can."""

    def __init__(self, clock: Clock, faces: FaceDetector):
        self._search = clock.wrap("search for faces", faces)
        if hasattr(faces, "follow"):
            self.follow = clock.wrap("follow faces", faces.follow)

    def __call__(self, image: Image.Image) -> list[Face]:
        """Search a picture."""
        return self._search(image)


def measure(detector: ActionUnitDetector, video: Path, every: int, folder: Path) -> dict:
    """One run of what `hiva predict` does: seconds by stage, frames, and memory over the time of the video."""
    clock = Clock()
    model = detector.model
    faces, crop, frames = detector.faces, hiva_hf.detector.crop_face, hiva_hf.prediction.video_pictures
    preprocess = detector.processor.image_processor.preprocess
    begun: list[float] = []

    def model_begins(*_):
        begun.append(time.perf_counter())

    def model_ends(*_):
        clock.seconds["model"] += time.perf_counter() - begun.pop()

    out = ResultFile(folder / "out.csv", detector.labels, detector.intensity)
    held: list[tuple[float, float]] = []
    count: list[int] = []

    def on_batch(pictures, results, done):
        count.append(len(pictures))
        if pictures:
            held.append((pictures[-1].timestamp, memory()))

    detector.faces = TimedFaces(clock, faces)
    hiva_hf.detector.crop_face = clock.wrap("crop", crop)
    hiva_hf.prediction.video_pictures = clock.each("decode", frames)
    detector.processor.image_processor.preprocess = clock.wrap("crop", preprocess)
    hooks = model.register_forward_pre_hook(model_begins), model.register_forward_hook(model_ends)
    for method in ("write", "finish"):
        setattr(out, method, clock.wrap("results", getattr(out, method)))
    try:
        begin = time.perf_counter()
        report = predict_sources(detector, [video], out, on_batch=on_batch, every=every)
        total = time.perf_counter() - begin
    finally:
        detector.faces = faces
        for hook in hooks:
            hook.remove()
        hiva_hf.detector.crop_face, hiva_hf.prediction.video_pictures = crop, frames
        detector.processor.image_processor.preprocess = preprocess
    clock.seconds["all else"] = total - sum(clock.seconds.values())
    return {"total": total, "stages": clock.seconds, "report": report, "frames": sum(count), "memory": held}


def main(
    checkpoint: Annotated[str, typer.Option(help="Folder of a checkpoint, or its Hub id.")],
    video: Annotated[Path | None, typer.Option(help="Measure on this video.")] = None,
    minutes: Annotated[float, typer.Option(help="Make a video of this length.")] = 0.25,
    rate: Annotated[int, typer.Option(min=1, help="Frames a second of the video that is made.")] = 25,
    every: Annotated[int, typer.Option(min=1, help="Read every so-manieth frame.")] = 1,
    batch_size: Annotated[int, typer.Option(min=1, help="Frames a step.")] = 32,
    search_interval: Annotated[float, typer.Option(min=0, help="Seconds of the video between searches.")] = 0.25,
    device: Annotated[str, typer.Option(help="Where the model runs.")] = "auto",
    peer: Annotated[
        str | None, typer.Option(help="Another program to time; {video} stands for the file. Its start counts.")
    ] = None,
):
    console = Console(width=110)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        video = video or make_video(folder / "face.mp4", 60 * minutes, rate)
        detector = ActionUnitDetector(checkpoint, device=device, batch_size=batch_size, search_interval=search_interval)
        # the first pass of a network is slower
        side = detector.processor.image_processor.size["height"]
        with torch.inference_mode():
            detector.model(torch.zeros(batch_size, 3, side, side, device=detector.model.device))
        run = measure(detector, video, every, folder)
        theirs = None
        if peer is not None:
            begin = time.perf_counter()
            subprocess.run(shlex.split(peer.format(video=video)), check=True, stdout=subprocess.DEVNULL)
            theirs = time.perf_counter() - begin

    report, total = run["report"], run["total"]
    frames = run["frames"]
    table = Table(title=f"{frames} frames read, {report.faces} faces; {torch.get_num_threads()} threads")
    for heading in ("stage", "share of the time", "ms a frame"):
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    for stage in ("decode", "search for faces", "follow faces", "crop", "model", "results", "all else"):
        seconds = run["stages"][stage]
        table.add_row(stage, f"{100 * seconds / total:.1f} %", f"{1000 * seconds / frames:.2f}")
    table.add_section()
    table.add_row("end to end", "100 %", f"{1000 * total / frames:.2f}")
    console.print(table)
    console.print(f"{frames / total:.1f} images/s; {total / run['stages']['model']:.2f} times the time of the model")
    if theirs is not None:
        console.print(f"the other program: {frames / theirs:.1f} images/s, {theirs / total:.2f} times our time")
    first = next((held for at, held in run["memory"] if at >= 60), None)
    if first is not None:
        (last, held), most = run["memory"][-1], max(held for _, held in run["memory"])
        console.print(
            f"memory: {first:.0f} MiB after minute 1, {held:.0f} MiB after minute {last / 60:.0f} "
            f"({held / first:.3f} times), at most {most:.0f} MiB"
        )


if __name__ == "__main__":
    typer.run(main)
