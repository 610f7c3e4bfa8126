"""The action units of face crops from an exported file, with onnxruntime, numpy and Pillow alone.

    hiva export onnx model --out model.onnx
    python examples/predict_onnx.py model.onnx crop.png other.png

Neither PyTorch, transformers nor hiva_hf is needed where this runs: the file tells how to prepare a picture and how to
read the answer. Pictures are upright crops of a face; `hiva predict` finds and aligns the faces of photographs.
"""

import argparse
import json

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def prepare(path, told):
    """A picture as float32 of shape (3, height, width)."""
    height, width = told["image_size"]
    with Image.open(path) as image:
        image = ImageOps.exif_transpose(image).convert("RGB")
    image = image.resize((width, height), Image.Resampling(told["resample"]))
    pixels = np.asarray(image, np.float32) * np.float32(told["rescale_factor"])
    pixels = (pixels - np.float32(told["image_mean"])) / np.float32(told["image_std"])
    return pixels.transpose(2, 0, 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="A file that hiva export onnx wrote.")
    parser.add_argument("crops", nargs="+", help="Pictures of one upright face each.")
    given = parser.parse_args()
    session = onnxruntime.InferenceSession(given.model, providers=["CPUExecutionProvider"])
    told = {name: json.loads(value) for name, value in session.get_modelmeta().custom_metadata_map.items()}
    pixel_values = np.stack([prepare(path, told) for path in given.crops])
    outputs = [output.name for output in session.get_outputs()]
    found = dict(zip(outputs, session.run(outputs, {"pixel_values": pixel_values}), strict=True))
    intensity = told["problem_type"] == "regression"
    for face, (path, row) in enumerate(zip(given.crops, found["logits"].astype(float), strict=True)):
        # intensities are 0 to 5 as they come; of occurrence the sigmoid is a probability
        values = row if intensity else 1 / (1 + np.exp(-row))
        scores = dict(zip(told["action_units"], values.tolist(), strict=True))
        active = [name for name, score in scores.items() if score >= told["thresholds"][name]]
        answer = {"source": path, "scores": scores, "active": active}
        if "intensities" in found:
            # a second head tells them beside the probabilities
            levels = found["intensities"][face].astype(float).tolist()
            answer["intensities"] = dict(zip(told["action_units"], levels, strict=True))
        print(json.dumps(answer))


if __name__ == "__main__":
    main()
