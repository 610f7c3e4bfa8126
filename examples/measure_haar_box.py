"""Where eyes, nose and mouth lie in the boxes of OpenCV's frontal Haar cascade, measured on rendered faces.

    python examples/measure_haar_box.py

Prints the medians that `hiva_hf.faces.alignment.box_to_points` uses. Faces turned by more than 15 degrees are left out.
"""

import numpy as np
from PIL import Image

from hiva_hf.data import load_rendered
from hiva_hf.faces import HaarDetector, five_points


def main() -> None:
    dataset = load_rendered()
    detector, fractions, missed = HaarDetector(), [], 0
    for row in dataset:
        image = row["image"].convert("RGB")
        big = image.resize((image.width * 2, image.height * 2), Image.Resampling.BICUBIC)
        points = five_points(row["landmarks"]) * 2
        tilt = np.degrees(np.arctan2(*(points[1] - points[0])[::-1]))
        yaw = abs(points[2, 0] - points[:2, 0].mean()) / np.linalg.norm(points[1] - points[0])
        if abs(tilt) > 15 or yaw > 0.25:
            continue
        boxes = detector.candidates(big)
        if not boxes:
            missed += 1
            continue
        # of several places the one at the face
        box = min(boxes, key=lambda box: np.linalg.norm(np.reshape(box, (2, 2)).mean(0) - points.mean(0)))
        inside = (points - box[:2]) / (box[2] - box[0])
        if (np.abs(inside - 0.5) < 0.7).all():
            fractions.append(inside)
    fractions = np.array(fractions)
    # a face and its mirror image are equally likely
    mirrored = fractions[:, [1, 0, 2, 4, 3]] * [-1, 1] + [1, 0]
    both = np.concatenate([fractions, mirrored])
    print(f"{len(fractions)} boxes, {missed} faces missed")
    for name, middle, spread in zip(
        ("left eye", "right eye", "nose", "left mouth", "right mouth"), np.median(both, 0), both.std(0), strict=True
    ):
        print(f"{name:12} x {middle[0]:.3f} y {middle[1]:.3f}   deviation {spread[0]:.3f} {spread[1]:.3f}")


if __name__ == "__main__":
    main()
