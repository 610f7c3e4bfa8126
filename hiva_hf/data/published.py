"""Mean F1 in percent as papers report it, three published parts; their protocols differ in more than they tell.

Most pick the best epoch on the tested part, which reports too much. A result without its parts, seeds and rule says
little: random threefold splits alone move the mean by several points.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """One row of a paper's table.

    Args:
        method (`str`): Name and venue.
        backbone (`str`): As the paper names it; empty where it does not.
        bp4d (`float`, *optional*): Mean F1 in percent on BP4D.
        disfa (`float`, *optional*): Mean F1 in percent on DISFA.
    """

    method: str
    backbone: str
    bp4d: float | None
    disfa: float | None

    @property
    def name(self) -> str:
        """`str`: Method and backbone."""
        return f"{self.method}, {self.backbone}" if self.backbone else self.method


PUBLISHED = (
    Published("JAA-Net (ECCV 2018)", "CNN", 60.0, 56.0),
    Published("SEV-Net (CVPR 2021)", "ResNet", 63.9, 58.8),
    Published("ME-GraphAU (IJCAI 2022)", "ResNet-50", 64.7, 63.1),
    Published("ME-GraphAU (IJCAI 2022)", "Swin-B", 65.5, 62.4),
    Published("CLEF (ICCV 2023)", "ViT", 65.9, 64.8),
    Published("AUNCE", "Swin-B", 66.1, 66.4),
    Published("MDHR (CVPR 2024)", "ResNet-50", 66.6, 64.9),
    Published("MDHR (CVPR 2024)", "Swin-B", 66.1, 66.2),
    Published("FMAE-IAT (FG 2025)", "ViT-L", 67.1, 70.1),
    Published("Norface (ECCV 2024, extra images)", "", 69.3, 72.7),
)

__all__ = ["PUBLISHED", "Published"]
