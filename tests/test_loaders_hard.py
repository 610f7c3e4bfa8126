"""Loaders on trees as they come: two cameras, macOS files, second copies, files of other programs, typing errors."""

import logging

import pytest
import test_loaders
from PIL import Image
from test_loaders import codes, occ, put, told

from hiva_hf.data import load_aff_wild2, load_bp4d, load_ck_plus, load_disfa, load_folder, load_gft
from hiva_hf.data.schema import LoadReport, au_names

face, bp4d, disfa, own = test_loaders.face, test_loaders.bp4d, test_loaders.disfa, test_loaders.own


def shade(dataset, row=0):
    return dataset[row]["image"].convert("L").getpixel((0, 0))


# ---- two folders of one recording


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("{}/LeftVideoSN001_comp", "{}/RightVideoSN001_comp"),
        ("Left/SN001", "Right/SN001"),
        ("Frames_LeftCamera/all/SN001", "Frames_RightCamera/all/SN001"),
        ("left_and_right/left/SN001", "left_and_right/right/SN001"),
    ],
)
@pytest.mark.parametrize("camera", ["left", "right"])
def test_frames_are_those_of_the_camera(disfa, left, right, camera):
    for place, grey in ((left, 40), (right, 200)):
        for n in range(1, 9):
            put(disfa / place.format("Images") / f"{n}.png", Image.new("RGB", (8, 8), (grey,) * 3))
    dataset, report = told(load_disfa, disfa, camera=camera)
    assert (len(dataset), shade(dataset)) == (8, 40 if camera == "left" else 200)
    assert not report.unlabelled


def test_frames_of_the_other_camera_only(disfa, face):
    put(disfa / "Right/SN001/1.png", face)
    with pytest.raises(FileNotFoundError, match="of the left camera"):
        load_disfa(disfa)


def test_two_folders_of_one_person(disfa, face):
    for place in ("aligned/SN001", "raw/SN001"):
        put(disfa / place / "1.png", face)
    with pytest.raises(ValueError, match=r"`images` must be given .*aligned/SN001 and .*raw/SN001"):
        load_disfa(disfa)
    dataset, _ = told(load_disfa, disfa, images=disfa / "raw")
    assert "raw/SN001" in dataset.data["image"][0]["path"].as_py()


def test_gft_and_ck_plus_in_two_copies(tmp_path, face):
    put(tmp_path / "gft/001A.csv", "AU1\n1\n")
    put(tmp_path / "ck/FACS/S005/001/S005_001_00000011_facs.txt", "9.0 5.0")
    for copy in ("a", "b"):
        put(tmp_path / f"gft/{copy}/001A/1.png", face)
        put(tmp_path / f"ck/{copy}/S005/001/S005_001_00000011.png", face)
    for loader, root, aus in ((load_gft, tmp_path / "gft", [1]), (load_ck_plus, tmp_path / "ck", [9])):
        with pytest.raises(ValueError, match=r"`images` must be given where there are several: .*/a/.* and .*/b/"):
            loader(root, aus=aus)
        assert len(told(loader, root, aus=aus, images=root / "b")[0]) == 1


def test_aff_wild2_takes_aligned_faces(tmp_path):
    put(tmp_path / "AU_Set/Train_Set/v1.txt", "AU1\n1\n")
    put(tmp_path / "AU_Set/Train_Set/v2.txt", "AU1\n1\n")
    for place, grey in (("cropped_aligned/v1", 40), ("cropped/v2", 60), ("zoomed/v1", 200)):
        put(tmp_path / place / "00001.png", Image.new("RGB", (8, 8), (grey,) * 3))
    dataset, _ = told(load_aff_wild2, tmp_path, aus=[1])
    assert [shade(dataset, n) for n in range(2)] == [40, 60]
    put(tmp_path / "zoomed/v2/00001.png", Image.new("RGB", (8, 8)))
    with pytest.raises(ValueError, match=r"`images` must be given .*cropped/v2 and .*zoomed/v2"):
        load_aff_wild2(tmp_path, aus=[1])
    assert shade(told(load_aff_wild2, tmp_path, aus=[1], images=tmp_path / "zoomed")[0]) == 200


# ---- two files, two frames, two images


@pytest.mark.parametrize("name", ["7.jpg", "0007.png"])
def test_two_images_of_one_frame_are_told(bp4d, name):
    put(bp4d / "2D/F001/T2" / name, Image.new("RGB", (8, 8)))
    dataset, report = told(load_bp4d, bp4d)
    spare = {"7.jpg": "7.jpg beside 0007.jpg", "0007.png": "0007.png beside 0007.jpg"}[name]
    assert report.unlabelled == [f"F001/T2 {spare}"]
    assert (len(dataset), dataset[5]["image"].size) == (15, (48, 48))


def test_images_without_a_number_are_told_and_files_of_macos_are_none(bp4d, face):
    put(bp4d / "2D/F001/T1/cover.jpg", face)
    put(bp4d / "2D/F001/T1/._0099.jpg", "")
    assert told(load_bp4d, bp4d)[1].unlabelled == ["F001/T1 cover.jpg"]


def test_labels_of_macos_are_none(disfa, face):
    put(disfa / "Images/SN001/1.png", face)
    put(disfa / "ActionUnit_Labels/SN001/._SN001_au1.txt", b"\x00\x05")
    assert len(told(load_disfa, disfa)[0]) == 1


def test_a_frame_that_is_coded_twice(bp4d, disfa, tmp_path, face):
    put(bp4d / "AUCoding/AU_OCC/F001_T1.csv", occ([(7, codes(7)), (8, codes(8)), (8, codes(9))]))
    with pytest.raises(ValueError, match=r"F001_T1\.csv must code a frame once; frame 8 stands twice"):
        load_bp4d(bp4d)
    put(disfa / "Images/SN001/1.png", face)
    put(disfa / "ActionUnit_Labels/SN001/SN001_au1.txt", "1,0\n2,1\n2,3\n")
    with pytest.raises(ValueError, match=r"SN001_au1\.txt must code a frame once; frame 2 stands twice"):
        load_disfa(disfa)
    put(tmp_path / "gft/001A.csv", "frame,AU1\n5,1\n5,0\n")
    with pytest.raises(ValueError, match=r"001A\.csv must code a frame once; frame 5 stands twice"):
        load_gft(tmp_path / "gft", aus=[1])
    put(tmp_path / "gft/001A.csv", "frame,AU1\n5,1\n,0\n")
    with pytest.raises(ValueError, match=r"001A\.csv must name frames by whole numbers; one is nan"):
        load_gft(tmp_path / "gft", aus=[1])


def test_intensities_that_stand_twice(bp4d):
    put(bp4d / "AUCoding/AU_INT/AU12/F001_T1_AU12.csv", "7,0\n7,3\n")
    with pytest.raises(ValueError, match=r"F001_T1_AU12\.csv must code a frame once; frame 7"):
        load_bp4d(bp4d)


def test_two_files_of_one_recording(bp4d, disfa, tmp_path, face):
    put(bp4d / "AUCoding/AU_OCC/F001_T1_old.csv", occ([(7, codes(7))]))
    with pytest.raises(ValueError, match=r"codes of F001/T1 once; .*F001_T1\.csv and .*F001_T1_old\.csv both do"):
        load_bp4d(bp4d)
    put(disfa / "Images/SN001/1.png", face)
    put(disfa / "ActionUnit_Labels/SN001/SN001_au01.txt", "1,0\n")
    with pytest.raises(ValueError, match=r"codes of AU1 once; .*SN001_au01\.txt and .*SN001_au1\.txt"):
        load_disfa(disfa)
    for place in ("gft/a/001A.csv", "gft/b/001a.csv", "aw/Train_Set/v.txt", "aw/Validation_Set/v.txt"):
        put(tmp_path / place, "AU1\n1\n")
    with pytest.raises(ValueError, match=r"codes of 001A once; .*a/001A\.csv and .*b/001a\.csv"):
        load_gft(tmp_path / "gft", aus=[1])
    with pytest.raises(ValueError, match=r"codes of v once; .*Train_Set/v\.txt and .*Validation_Set/v\.txt"):
        load_aff_wild2(tmp_path / "aw", aus=[1])
    for place in ("a", "b"):
        put(tmp_path / f"ck/{place}/S005_001_00000011_facs.txt", "9.0 5.0")
    with pytest.raises(ValueError, match="both of frame 11 of S005/001"):
        load_ck_plus(tmp_path / "ck", aus=[9])


def test_gft_does_not_read_predictions(tmp_path, face):
    put(tmp_path / "001A.csv", "AU1\n1\n")
    put(tmp_path / "001A_pred.csv", "AU1\n0\n")
    put(tmp_path / "001A/1.jpg", face)
    dataset, report = told(load_gft, tmp_path, aus=[1])
    assert (dataset["labels"][:], report.complete) == ([[1]], True)


# ---- images without codes, rows without codes


def test_people_without_codes_are_told(disfa, tmp_path, face):
    for place in ("Images/SN001", "Images/SN099"):
        put(disfa / place / "1.png", face)
    assert told(load_disfa, disfa)[1].unlabelled == ["SN099 frame 1"]
    put(tmp_path / "gft/001A.csv", "AU1\n1\n")
    for place in ("001A", "002B"):
        put(tmp_path / "gft/frames" / place / "1.jpg", face)
    dataset, report = told(load_gft, tmp_path / "gft", aus=[1])
    assert (dataset["subject_id"][:], report.unlabelled) == (["001A"], ["002B frame 1"])


def test_videos_without_codes_are_told(tmp_path, face):
    put(tmp_path / "AU_Set/Train_Set/v1.txt", "AU1\n1\n")
    for place in ("cropped_aligned/v1/1.jpg", "cropped_aligned/v2/1.jpg", "cropped_aligned/v2/cover.jpg"):
        put(tmp_path / place, face)
    assert told(load_aff_wild2, tmp_path, aus=[1])[1].unlabelled == ["v2 frame 1", "v2 cover.jpg"]
    # it may be of another split
    assert told(load_aff_wild2, tmp_path, aus=[1], split="Train")[1].complete


@pytest.mark.parametrize("empty", ["", ",", " , "])
def test_an_empty_row_is_a_frame_where_rows_are_frames(tmp_path, face, empty):
    text = f"AU1,AU2\n1,0\n{empty}\n0,1\n\n\n"
    put(tmp_path / "gft/001A.csv", text)
    put(tmp_path / "aw/Train_Set/v1.txt", text)
    for n in (1, 2, 3):
        put(tmp_path / f"gft/001A/{n}.jpg", face)
        put(tmp_path / f"aw/cropped_aligned/v1/{n}.jpg", face)
    dataset, report = told(load_gft, tmp_path / "gft", aus=[1, 2])
    assert (dataset["labels"][:], report.complete) == ([[1, 0], [-100, -100], [0, 1]], True)
    dataset, report = told(load_aff_wild2, tmp_path / "aw", aus=[1, 2])
    assert (dataset["frame"][:], dataset["labels"][:]) == ([1, 3], [[1, 0], [0, 1]])
    assert report.notes == ["1 frame without a valid code, left out"]
    # where a column names the frame, an empty row is none
    put(tmp_path / "gft/001A.csv", f"frame,AU1\n1,0\n{empty}\n3,1\n")
    dataset, report = told(load_gft, tmp_path / "gft", aus=[1])
    assert (dataset["frame"][:], report.unlabelled) == ([1, 3], ["001A frame 2"])


# ---- subjects


def test_unknown_subjects_are_named(bp4d, disfa, own, tmp_path, face):
    put(disfa / "Images/SN001/1.png", face)
    put(tmp_path / "gft/001A.csv", "AU1\n1\n")
    put(tmp_path / "aw/Train_Set/v1.txt", "AU1\n1\n")
    put(tmp_path / "ck/S005_001_00000011_facs.txt", "9.0 5.0")
    for loader, root, known, options in (
        (load_bp4d, bp4d, "F001", {}),
        (load_disfa, disfa, "SN001", {}),
        (load_gft, tmp_path / "gft", "001A", {"aus": [1]}),
        (load_aff_wild2, tmp_path / "aw", "v1", {"aus": [1]}),
        (load_ck_plus, tmp_path / "ck", "S005", {"aus": [9]}),
        (load_folder, own, "Ann", {"csv": own / "labels.csv"}),
    ):
        with pytest.raises(ValueError, match=rf"`subjects` must name subjects of .*; got F999\. Known: .*{known}"):
            loader(root, subjects=[known, "F999"], **options)
        with pytest.raises(ValueError, match="got none"):
            loader(root, subjects=[], **options)


# ---- a folder of one's own


@pytest.mark.parametrize("header", ["File_Name, Subject ,AU1", "FILENAME,participant,AU1", "filename,SubjectID,AU1"])
def test_names_of_columns_in_any_case(tmp_path, face, header):
    for name in ("x/1.png", "x/2.png"):
        put(tmp_path / name, face)
    put(tmp_path / "labels.csv", f"{header}\nx/1.png,Ann,1\nx/2.png,Bob,0\n")
    dataset, report = told(load_folder, tmp_path)
    assert (dataset["subject_id"][:], report.complete) == (["Ann", "Bob"], True)


def test_who_people_are_is_told_and_is_no_loss(own, caplog):
    (own / "bob/extra.jpg").unlink()
    put(own / "labels.csv", "file_name,AU1\nann/a1.png,1\nann/a2.png,1\nbob/b 3.png,0\n")
    _, report = told(load_folder, own)
    assert report.notes == ["people are the folders of the images: 2 of them"]
    assert report.complete
    with caplog.at_level(logging.INFO):
        load_folder(own)
    assert [record.levelname for record in caplog.records if "people are" in record.message] == ["INFO"]


def test_columns_that_are_not_used_are_told(own):
    put(own / "labels.csv", "file_name,person,smile,AU1,subject,\nann/a1.png,A,1,1,Ann,0\n")
    dataset, report = told(load_folder, own)
    assert (au_names(dataset), dataset["subject_id"][:]) == (["AU1"], ["Ann"])
    assert report.notes == ["columns not used: person, smile, one without a name"]
    assert not report.complete
    put(own / "labels.csv", "file_name,subject,AU1,AU2\nann/a1.png,Ann,1,1\n")
    # what is not asked for is left out by wish
    assert told(load_folder, own, aus=["AU2"])[1].notes == []


def test_a_column_of_no_known_action_unit(own):
    put(own / "labels.csv", "file_name,subject,AU1,AU99\nann/a1.png,Ann,1,1\n")
    with pytest.raises(ValueError, match=r"labels\.csv must have columns of known action units; 'AU99' is none"):
        load_folder(own)
    dataset, report = told(load_folder, own, aus=["AU1"])
    assert (au_names(dataset), report.notes) == (["AU1"], ["columns not used: AU99"])


def test_a_cell_that_is_no_code_is_told_with_its_row(own):
    put(own / "labels.csv", "file_name,AU1\nann/a1.png,1\n\nann/a2.png,yes\n")
    for intensities, rule in ((False, "0 or 1"), (True, "0 to 5")):
        with pytest.raises(ValueError, match=rf"must hold {rule}, or empty.*; row 4, AU1, is 'yes'\.$"):
            load_folder(own, intensities=intensities)


def test_columns_of_openface(own):
    """`_r` is an intensity, `_c` an occurrence, and AU28 has only the latter."""
    put(own / "labels.csv", "file_name,subject, AU12_c, AU12_r, AU28_c\nann/a1.png,Ann,1,0.4,1\n")
    for order in (lambda cells: cells, lambda cells: [*cells[:2], *cells[:1:-1]]):
        lines = [order(line.split(",")) for line in (own / "labels.csv").read_text().splitlines()]
        put(own / "labels.csv", "\n".join(map(",".join, lines)))
        dataset, report = told(load_folder, own)
        assert (au_names(dataset), dataset["labels"][:], report.notes) == (["AU12", "AU28"], [[1, 1]], [])
        dataset, report = told(load_folder, own, intensities=True)
        assert (au_names(dataset), report.notes) == (["AU12"], ["columns not used: AU28_c"])
        assert dataset["intensities"][0] == pytest.approx([0.4])


def test_two_columns_of_one_action_unit_name_the_file(own):
    put(own / "labels.csv", "file_name,AU12,AU012\nann/a1.png,1,0\n")
    with pytest.raises(ValueError, match=r"labels\.csv: .*'AU12' and 'AU012' are both AU12"):
        load_folder(own)


def test_files_of_macos_are_no_images_of_ones_own(own):
    put(own / "ann/._a1.png", "")
    assert told(load_folder, own)[1].unlabelled == ["bob/extra.jpg"]


def test_reports_count_as_people_do():
    one = LoadReport("x", 1, unlabelled=["a"], imageless=["b"])
    assert (
        str(one)
        == "x: 1 labelled image; 1 image without a label, left out (a); 1 label without an image, left out (b)."
    )
    two = LoadReport("x", 2, unlabelled=["a", "c"], imageless=["b", "d"])
    assert "2 labelled images; 2 images without labels, left out (a, c); 2 labels without images" in str(two)
