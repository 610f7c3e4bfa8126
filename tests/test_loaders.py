"""Loaders on small trees in each dataset's true layout; labels by chance, faces from the sample."""

import numpy as np
import pytest
from command import write_video
from PIL import Image

from hiva_hf.data import (
    load_aff_wild2,
    load_bp4d,
    load_bp4d_plus,
    load_ck_plus,
    load_disfa,
    load_folder,
    load_gft,
    load_rendered,
)
from hiva_hf.data.schema import LoadReport, au_names
from hiva_hf.facs import BP4D_AUS, DISFA_AUS

COLUMNS = ["image", "labels", "subject_id", "sequence_id", "frame", "dataset"]


@pytest.fixture(scope="module")
def face():
    return load_rendered()[0]["image"].convert("RGB").resize((48, 48))


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, Image.Image):
        content.save(path)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content, encoding="utf-8")
    return path


def told(loader, root, **options):
    """What a loader gives, and its report."""
    reports: list[LoadReport] = []
    dataset = loader(root, on_report=reports.append, **options)
    (report,) = reports
    return dataset, report


# ---- BP4D

AUS = [1, 2, 4, 5, 6, 7, 10, 12, 14, 15, 17, 23, 24]


def occ(rows, order=AUS, ends="\n"):
    lines = [",".join(map(str, [0, *order]))]
    lines += [",".join(map(str, [frame, *[codes[au] for au in order]])) for frame, codes in rows]
    return ends.join(lines) + ends


def codes(frame):
    return {au: (frame + au) % 2 for au in AUS}


@pytest.fixture
def bp4d(tmp_path, face):
    """Two people, two tasks; padded and unpadded names; the columns of one file in another order."""
    root = tmp_path / "BP4D ü"
    for subject, task, name in (("F001", "T1", "{}"), ("F001", "T2", "{:04}"), ("M002", "T1", "{:05}")):
        order = AUS[::-1] if task == "T2" else AUS
        put(root / f"AUCoding/AU_OCC/{subject}_{task}.csv", occ([(n, codes(n)) for n in range(7, 12)], order))
        for frame in range(7, 12):
            put(root / f"2D/{subject}/{task}/{name.format(frame)}.jpg", face)
    return root


@pytest.mark.parametrize("loader", [load_bp4d, load_bp4d_plus])
def test_bp4d(bp4d, loader):
    dataset, report = told(loader, bp4d)
    assert dataset.column_names == COLUMNS
    assert au_names(dataset) == list(BP4D_AUS)
    assert report.complete
    assert len(dataset) == report.frames == 15
    assert dataset["subject_id"][:] == ["F001"] * 10 + ["M002"] * 5
    assert dataset["sequence_id"][5] == "F001/T2"
    assert dataset["frame"][:5] == [7, 8, 9, 10, 11]
    for row in dataset:
        assert row["labels"] == [(row["frame"] + int(au[2:])) % 2 for au in BP4D_AUS]
        assert row["image"].size == (48, 48)
    assert dataset["dataset"][0] == {"load_bp4d": "BP4D", "load_bp4d_plus": "BP4D+"}[loader.__name__]


def test_bp4d_in_another_order_and_of_some_people(bp4d):
    dataset, _ = told(load_bp4d, bp4d, aus=["AU12", 1], subjects=["M002"])
    assert au_names(dataset) == ["AU12", "AU1"]
    assert set(dataset["subject_id"]) == {"M002"}
    assert dataset[0]["labels"] == [1.0, 0.0]


def test_nothing_is_dropped_in_silence(bp4d, face, caplog):
    (bp4d / "2D/F001/T1/7.jpg").unlink()
    put(bp4d / "2D/F001/T1/99.jpg", face)
    put(bp4d / "2D/M002/T8/1.jpg", face)
    put(bp4d / "AUCoding/AU_OCC/M002_T5.csv", occ([(1, codes(1))]))
    dataset, report = told(load_bp4d, bp4d)
    assert len(dataset) == 14
    assert report.unlabelled == ["F001/T1 frame 99", "M002/T8 frame 1"]
    assert report.imageless == ["F001/T1 frame 7", "M002/T5 frame 1"]
    load_bp4d(bp4d)
    assert "2 images without labels, left out (F001/T1 frame 99, M002/T8 frame 1)" in caplog.text


def test_nine_is_not_coded(bp4d):
    rows = [(7, codes(7) | {12: 9, 1: 9}), (8, codes(8) | {4: 3})]
    put(bp4d / "AUCoding/AU_OCC/F001_T1.csv", occ(rows))
    dataset, _ = told(load_bp4d, bp4d, aus=[1, 4, 12])
    assert dataset[0]["labels"] == [-100, (7 + 4) % 2, -100]
    assert dataset[1]["labels"] == [(8 + 1) % 2, -100, 0]


def test_a_byte_order_mark_and_windows_lines(bp4d):
    text = occ([(n, codes(n)) for n in range(7, 12)], ends="\r\n")
    put(bp4d / "AUCoding/AU_OCC/F001_T1.csv", b"\xef\xbb\xbf" + text.encode())
    dataset, report = told(load_bp4d, bp4d)
    assert (len(dataset), report.complete) == (15, True)


def test_a_table_that_is_cut_off_is_named(bp4d):
    path = bp4d / "AUCoding/AU_OCC/F001_T1.csv"
    path.write_text(path.read_text()[:-8])
    with pytest.raises(ValueError, match=r"F001_T1\.csv must have 14 cells in every row; row 6 has 11"):
        load_bp4d(bp4d)
    path.write_text("")
    with pytest.raises(ValueError, match=r"F001_T1\.csv must hold a table with a header"):
        load_bp4d(bp4d)
    path.write_text("0,1\n7,x\n")
    with pytest.raises(ValueError, match="must hold numbers; row 2 is '7,x'"):
        load_bp4d(bp4d, aus=[1])


def test_an_au_that_is_not_coded_lists_those_that_are(bp4d):
    with pytest.raises(ValueError, match=r"lacks AU27\. Coded: AU1, AU2"):
        load_bp4d(bp4d, aus=["AU1", "AU27"])


def test_intensities_of_bp4d(bp4d):
    put(bp4d / "AUCoding/AU_INT/AU12/F001_T1_AU12.csv", "7,0\n8,3\n9,9\n")
    put(bp4d / "AUCoding/AU_INT/AU06/F001_T1_AU06.csv", "9,5\n")
    dataset, _ = told(load_bp4d, bp4d, aus=[6, 12])
    assert dataset["intensities"][:4] == [[-100, 0], [-100, 3], [5, -100], [-100, -100]]
    assert dataset.column_names == [*COLUMNS[:2], "intensities", *COLUMNS[2:]]


def test_a_copy_whose_frames_are_shifted(bp4d):
    dataset, report = told(load_bp4d_plus, bp4d, frame_offset=-1)
    # frame 8 is image 7
    assert dataset[0]["frame"] == 8
    assert len(report.imageless) == len(report.unlabelled) == 3


@pytest.mark.parametrize("loader", [load_bp4d, load_disfa, load_gft, load_aff_wild2, load_ck_plus])
def test_what_is_missing_shows_the_tree(tmp_path, loader):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*\n.*ROOT/"):
        loader(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="Expected:\nROOT/"):
        loader(tmp_path)


def test_codes_without_any_image(bp4d):
    for path in bp4d.rglob("*.jpg"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match="15 labels without images"):
        load_bp4d(bp4d)


# ---- DISFA


@pytest.fixture
def disfa(tmp_path, face):
    root = tmp_path / "DISFA"
    for subject in ("SN001", "SN002"):
        for au in (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26):
            lines = [f"{n},{(n + au) % 6}" for n in range(1, 9)]
            put(root / f"ActionUnit_Labels/{subject}/{subject}_au{au}.txt", "\n".join(lines) + "\n")
    return root


def check_disfa(dataset, report, frames=16):
    assert au_names(dataset) == list(DISFA_AUS)
    assert report.frames == len(dataset) == frames
    for row in dataset:
        levels = [(row["frame"] + int(au[2:])) % 6 for au in DISFA_AUS]
        assert row["intensities"] == levels
        assert row["labels"] == [float(level >= 2) for level in levels]


@pytest.mark.parametrize("name", ["{}.png", "{:04}.png", "frame_{:05}.jpg"])
def test_disfa_by_extracted_frames(disfa, face, name):
    for subject in ("SN001", "SN002"):
        for n in range(1, 9):
            put(disfa / "Images" / subject / name.format(n), face)
    dataset, report = told(load_disfa, disfa)
    check_disfa(dataset, report)
    assert dataset[0]["image"].size == (48, 48)
    dataset, _ = told(load_disfa, disfa, occurrence_at=1, aus=[12])
    assert [row["labels"] for row in dataset] == [[float((row["frame"] + 12) % 6 >= 1)] for row in dataset]


def shades(count):
    return [Image.new("RGB", (64, 48), (20 * n, 20 * n, 20 * n)) for n in range(count)]


def test_disfa_straight_from_the_videos(disfa):
    put(disfa / "Videos_LeftCamera/x", "")
    for subject, letter in (("SN001", "Left"), ("SN002", "left")):
        write_video(disfa / f"Videos_LeftCamera/{letter}Video{subject}_comp.avi", shades(8))
    dataset, report = told(load_disfa, disfa)
    check_disfa(dataset, report)
    assert report.complete
    for index in (3, 7, 0, 12):
        shade = np.asarray(dataset[index]["image"], dtype=float).mean()
        # frame 1 of the labels is the first of the video
        assert shade == pytest.approx(20 * (dataset[index]["frame"] - 1), abs=6)
    with pytest.raises(FileNotFoundError, match="right camera"):
        load_disfa(disfa, camera="right")


def test_a_video_with_a_missing_tail(disfa):
    put(disfa / "Videos_LeftCamera/x", "")
    write_video(disfa / "Videos_LeftCamera/LeftVideoSN001_comp.avi", shades(8))
    write_video(disfa / "Videos_LeftCamera/LeftVideoSN002_comp.avi", shades(5))
    dataset, report = told(load_disfa, disfa)
    check_disfa(dataset, report, frames=13)
    assert report.imageless == [f"SN002 frame {n}" for n in (6, 7, 8)]


def test_a_label_file_that_is_cut_off(disfa, face):
    put(disfa / "Images/SN001/1.png", face)
    path = disfa / "ActionUnit_Labels/SN001/SN001_au12.txt"
    path.write_text(path.read_text()[:-2])
    with pytest.raises(ValueError, match=r"SN001_au12\.txt must hold lines of frame,intensity; line 8 is '8,'"):
        load_disfa(disfa)
    path.write_text("1,0\n2,1\n")
    with pytest.raises(ValueError, match=r"8 of them; it has 2\. Is it cut off"):
        load_disfa(disfa)
    path.unlink()
    with pytest.raises(ValueError, match="lacks AU12"):
        load_disfa(disfa)


# ---- the others


def test_gft(tmp_path, face):
    put(tmp_path / "codes/001A.csv", "frame,AU1,AU2,AU4\n5,1,0,9\n6,0,-1,1\n7,2,1,0\n")
    for n in (5, 6, 8):
        put(tmp_path / f"frames/001A/{n:06}.jpg", face)
    dataset, report = told(load_gft, tmp_path, aus=[4, 1, 2])
    assert [row["labels"] for row in dataset] == [[-100, 1, 0], [1, 0, -100]]
    assert (report.unlabelled, report.imageless) == (["001A frame 8"], ["001A frame 7"])


def test_aff_wild2(tmp_path, face):
    text = "AU1,AU2,AU4\n1,0,-1\n-1,-1,-1\n0,1,1\n"
    put(tmp_path / "AU_Set/Train_Set/video1_left.txt", text)
    put(tmp_path / "AU_Set/Validation_Set/video2.txt", text)
    for n in (1, 2, 3, 4):
        put(tmp_path / f"cropped_aligned/video1_left/{n:05}.jpg", face)
        put(tmp_path / f"cropped_aligned/video2/{n:05}.jpg", face)
    dataset, report = told(load_aff_wild2, tmp_path, aus=[1, 4])
    assert [row["labels"] for row in dataset] == [[1, -100], [0, 1]] * 2
    assert dataset["frame"][:] == [1, 3, 1, 3]
    assert report.unlabelled == ["video1_left frame 4", "video2 frame 4"]
    assert report.notes == ["2 frames without a valid code, left out"]
    dataset, _ = told(load_aff_wild2, tmp_path, aus=[1, 4], split="validation")
    assert set(dataset["subject_id"]) == {"video2"}


def test_ck_plus(tmp_path, face):
    put(tmp_path / "FACS/S005/001/S005_001_00000011_facs.txt", "   9.0000000e+00   5.0e+00\n   17.0   0.0\n")
    put(tmp_path / "FACS/S010/002/S010_002_00000014_facs.txt", "")
    for subject, number, last in (("S005", "001", 11), ("S010", "002", 14)):
        for n in (1, 2, last):
            name = f"{subject}_{number}_{n:08}.png"
            put(tmp_path / "cohn-kanade-images" / subject / number / name, face)
    dataset, report = told(load_ck_plus, tmp_path, aus=[9, 12, 17])
    assert report.complete
    assert [row["labels"] for row in dataset] == [[1, 0, 1], [0, 0, 0]]
    assert [row["intensities"] for row in dataset] == [[5, 0, -100], [0, 0, 0]]
    assert dataset["frame"][:] == [11, 14]
    dataset, _ = told(load_ck_plus, tmp_path, aus=[9], neutral=True)
    assert list(zip(dataset["frame"], [row["labels"][0] for row in dataset], strict=True)) == [
        (1, 0), (11, 1), (1, 0), (14, 0)
    ]  # fmt: skip
    put(tmp_path / "FACS/S005/001/S005_001_00000011_facs.txt", "9.0 5.0 17.0")
    with pytest.raises(ValueError, match=r"must hold pairs of AU and intensity; got '9\.0 5\.0 17\.0'"):
        load_ck_plus(tmp_path)


# ---- a folder of one's own


@pytest.fixture
def own(tmp_path, face):
    for name in ("ann/a1.png", "ann/a2.png", "bob/b 3.png", "bob/extra.jpg"):
        put(tmp_path / name, face)
    put(
        tmp_path / "labels.csv",
        "file_name,subject,AU12,AU01\nann/a1.png,Ann,1,0\nann/a2.png,Ann,,9\nbob/b 3.png,Bob,-1,1\n"
        "bob/none.png,Bob,1,1\n",
    )
    return tmp_path


def test_a_folder_of_ones_own(own):
    dataset, report = told(load_folder, own)
    assert au_names(dataset) == ["AU1", "AU12"]
    assert [row["labels"] for row in dataset] == [[0, 1], [-100, -100], [1, -100]]
    assert dataset["subject_id"][:] == ["Ann", "Ann", "Bob"]
    assert dataset["frame"][:] == [1, 2, 3]
    assert report.imageless == ["bob/none.png"]
    assert report.unlabelled == ["bob/extra.jpg"]
    assert dataset[2]["image"].size == (48, 48)


def test_people_are_the_folders_where_no_column_names_them(own):
    put(own / "labels.csv", "\ufefffile;AU1\r\nann/a1.png;1\r\nbob/b 3.png;0\r\n")
    dataset, _ = told(load_folder, own)
    assert dataset["subject_id"][:] == ["ann", "bob"]


def test_intensities_of_ones_own(own):
    put(own / "labels.csv", "file_name,AU12\nann/a1.png,3.5\nann/a2.png,0\nbob/b 3.png,\n")
    dataset, _ = told(load_folder, own, intensities=True)
    assert dataset["intensities"][:] == [[3.5], [0], [-100]]
    assert dataset["labels"][:] == [[1], [0], [-100]]
    with pytest.raises(ValueError, match=r"row 2, AU12, is '3\.5'\. For intensities, say"):
        load_folder(own)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("subject,AU1\na,1\n", "must have a column file_name"),
        ("file_name,subject\nann/a1.png,a\n", "lacks columns of action units"),
        ("file_name,AU1\nann/a1.png,yes\n", "row 2, AU1, is 'yes'"),
        ("file_name,AU1\nann/a1.png,1,2,3\n", "row 2 has 4. Is the file cut off"),
        ("", "must hold a table with a header"),
        ("file_name,AU1\nnone.png,1\n", "none was found"),
    ],
)
def test_tables_that_are_none(own, table, message):
    put(own / "labels.csv", table)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_folder(own)


def test_two_tables_are_one_too_many(own):
    put(own / "more.csv", "")
    with pytest.raises(FileNotFoundError, match="holds 2"):
        load_folder(own)
    assert len(told(load_folder, own, csv=own / "labels.csv")[0]) == 3
