"""Frames of videos as images of a dataset, also where a loader has processes of its own."""

import subprocess
import sys

import numpy as np
from command import write_video
from datasets import Dataset, Features
from PIL import Image

from hiva_hf.data.video_frames import FrameImage, frame_path

LEVELS = [0, 40, 80, 120, 160, 200, 240]
IN_PROCESSES = """
import os, sys
import numpy as np
import torch
from datasets import Dataset, Features
from hiva_hf.data.video_frames import FrameImage, frame_path

def levels(batch):
    return {"level": [np.asarray(image).mean() for image in batch["image"]]}

paths = [frame_path(video, number) for video in sys.argv[1:] for number in range(7)]
rows = Dataset.from_dict({"image": paths}, features=Features({"image": FrameImage()})).with_transform(levels)
rows[0], rows[7]
seen = torch.utils.data.DataLoader(rows, batch_size=2, num_workers=2, multiprocessing_context="fork")
print(*(round(level) for batch in seen for level in batch["level"].tolist()))
# the parent goes on with its own
print(round(rows[1]["level"]), round(rows[8]["level"]))
"""


def grey(path):
    return write_video(path, [Image.new("RGB", (64, 48), (level,) * 3) for level in LEVELS])


def test_frames_in_any_order(tmp_path):
    video = str(grey(tmp_path / "a.mkv"))
    order = [3, 0, 6, 6, 1]
    rows = Dataset.from_dict(
        {"image": [frame_path(video, number) for number in order]}, features=Features({"image": FrameImage()})
    )
    assert [round(np.asarray(row["image"]).mean() / 40) for row in rows] == order


def test_a_video_that_was_looked_at_is_read_by_the_processes_of_a_loader(tmp_path):
    videos = [str(grey(tmp_path / name)) for name in ("a.mkv", "b.mkv", "c.mkv")]
    call = [sys.executable, "-c", IN_PROCESSES, *videos]
    # it used to wait for ever for threads that a fork does not have
    done = subprocess.run(call, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    seen, after = ([int(level) for level in line.split()] for line in done.stdout.splitlines())
    assert np.allclose(seen, LEVELS * 3, atol=4)
    assert np.allclose(after, [40, 40], atol=4)
