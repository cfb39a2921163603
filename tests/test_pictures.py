import os
import tracemalloc

from folders import folder_of, items_of, picture, png_header, write


def test_pictures_by_id_and_by_name(tmp_path):
    path = folder_of(tmp_path, items_csv="illust_id,image\n1,\n2,deep/x.png\n3,\na.b,\n5,\n")
    write(
        path / "images",
        {"1.PNG": picture(1), "deep/x.png": picture(2), "3.webp": picture(3, "WEBP"),
         "3.png": picture(4), "a.b.jpg": picture(5, "JPEG"), "5.txt": "a note"},
    )  # fmt: skip
    found, report = items_of(path)
    expected = [picture(1), picture(2), picture(4), picture(5, "JPEG"), None]
    assert [item.image for item in found] == expected
    assert report.counts == {"ambiguous_image": 1, "no_image": 1}
    assert report.examples["ambiguous_image"][0].value == "3.png, 3.webp"


def test_pictures_never_leave_their_folder(tmp_path):
    secret = tmp_path / "secret"
    write(secret, {"x.png": picture()})
    path = tmp_path / "mine"
    names = ["../secret.png", str(secret / "x.png"), "../../secret/x.png", "link.png", "dir/x.png"]
    rows = "".join(f"{k},{name}\n" for k, name in enumerate(names))
    path.mkdir()
    folder_of(path, items_csv="illust_id,image\n" + rows + "byid,\n")
    (path / "images").mkdir()
    (path / "images/link.png").symlink_to(secret / "x.png")
    (path / "images/byid.png").symlink_to(secret / "x.png")
    (path / "images/dir").symlink_to(secret)
    found, report = items_of(path)
    assert [item.image for item in found] == [None] * 6
    assert report.counts == {"image_outside": 6}
    # Inside, links and dots are fine; and the folder itself may be a link.
    write(path, {"images/good.png": picture(3)})
    (path / "images/other.png").symlink_to("good.png")
    (path / "images").rename(tmp_path / "elsewhere")
    (path / "images").symlink_to(tmp_path / "elsewhere")
    write(path, {"items.csv": "illust_id,image\n1,other.png\n2,./dir/../good.png\n3,a/../good.png"})
    found, report = items_of(path)
    assert found[0].image == found[2].image == picture(3)


def test_names_that_are_no_pictures(tmp_path):
    names = ["absent.png", "folder", "x" * 5000, "pipe", "loop.png"]
    rows = "".join(f"{k},{name}\n" for k, name in enumerate(names))
    path = folder_of(tmp_path, items_csv="illust_id,image\n" + rows + "9,nul\0.png\n")
    (path / "images/folder").mkdir(parents=True)
    os.mkfifo(path / "images/pipe")  # reading it would wait for ever
    (path / "images/loop.png").symlink_to("loop.png")
    found, report = items_of(path)
    assert [item.image for item in found] == [None] * 6
    assert report.counts == {"image_not_found": 6}


def test_no_folder_of_pictures(tmp_path):
    found, report = items_of(folder_of(tmp_path, items_csv="illust_id,image\n1,\n2,x.png\n"))
    assert [item.image for item in found] == [None, None]
    assert report.counts == {"no_image": 1, "image_not_found": 1}
    assert "no folder images/" in report.examples["image_not_found"][0].value


def test_a_huge_file_is_not_read(tmp_path):
    path = folder_of(tmp_path, items_csv="illust_id\n1\n")
    (path / "images").mkdir()
    with open(path / "images/1.png", "wb") as file:
        file.truncate(300 * 2**20)
    tracemalloc.start()
    found, report = items_of(path)
    assert tracemalloc.get_traced_memory()[1] < 2**26
    tracemalloc.stop()
    assert report.counts == {"image_too_large": 1}
    assert found[0].image is None


def test_a_png_that_claims_too_much_is_passed_on(tmp_path):
    # Its header is prepare's to judge: the source hands the bytes over without decoding them.
    bomb = png_header(10**5, 10**5)
    path = folder_of(tmp_path, items_csv="illust_id\n1\n")
    write(path, {"images/1.png": bomb})
    assert items_of(path)[0][0].image == bomb
