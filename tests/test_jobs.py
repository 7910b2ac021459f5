import os
from pathlib import Path
from typing import Any

import pytest
import torch
from photo_folders import photos, touch

from fairweather.errors import OptionError
from fairweather.models import create_model
from fairweather.restoration import Failure, Restorer, Summary, plan_jobs, run_jobs


@pytest.fixture(scope="module")
def restorer() -> Restorer:
    torch.manual_seed(0)
    return Restorer(create_model("ast_n", init="official"), device="cpu")


def planned(*inputs: str, out: str | None = None) -> dict[str, str]:
    """Source → target; none of the inputs fails."""
    jobs, failures, _ = plan_jobs(inputs, out=None if out is None else Path(out))
    assert failures == []
    return {str(job.source): str(job.target) for job in jobs}


def assert_named(failures: list[Failure]) -> None:
    """The reason is all that the command prints of a failure."""
    for failure in failures:
        assert failure.reason.startswith(f"'{failure.source}'")
        assert "\n" not in failure.reason


def refused(*inputs: str, out: str | None = None) -> tuple[list[str], list[str]]:
    """The sources planned, and the reasons of the failures."""
    jobs, failures, _ = plan_jobs(inputs, out=None if out is None else Path(out))
    assert_named(failures)
    return [str(job.source) for job in jobs], [failure.reason for failure in failures]


@pytest.mark.usefixtures("here")
class TestNames:
    def test_a_file_stays_beside_itself(self) -> None:
        touch("a/photo.jpg", "b.c.PNG")
        assert planned("a/photo.jpg", "b.c.PNG") == {
            "a/photo.jpg": "a/photo.restored.jpg",
            "b.c.PNG": "b.c.restored.PNG",
        }

    def test_a_file_that_is_not_there_is_still_a_job(self) -> None:
        assert planned("none.jpg") == {"none.jpg": "none.restored.jpg"}

    def test_a_file_to_a_file(self) -> None:
        touch("photo.jpg")
        assert planned("photo.jpg", out="x/y.TIF") == {"photo.jpg": "x/y.TIF"}

    def test_files_to_a_folder(self) -> None:
        touch("a/photo.jpg", "b/other.jpg")
        assert planned("a/photo.jpg", out="x") == {"a/photo.jpg": "x/photo.jpg"}
        expected = {"a/photo.jpg": "x/photo.jpg", "b/other.jpg": "x/other.jpg"}
        assert planned("a/photo.jpg", "b/other.jpg", out="x") == expected

    def test_a_folder_may_be_called_like_a_file(self) -> None:
        touch("photo.jpg", "out.png/old.txt")
        assert planned("photo.jpg", out="out.png") == {"photo.jpg": "out.png/photo.jpg"}

    @pytest.mark.parametrize("name", ["photos", "photos/", "./photos"])
    def test_a_folder_is_mirrored(self, name: str) -> None:
        touch("photos/a.jpg", "photos/deep/er/b.TIFF", "photos/notes.txt", "photos/c.jpg.txt")
        assert planned(name) == {
            "photos/a.jpg": "photos-restored/a.jpg",
            "photos/deep/er/b.TIFF": "photos-restored/deep/er/b.TIFF",
        }
        assert planned(name, out="x")["photos/deep/er/b.TIFF"] == "x/deep/er/b.TIFF"

    @pytest.mark.parametrize("name", [".", "..", "../here", "../here/inner/.."])
    def test_the_folder_itself_is_mirrored_beside_it(self, here: Path, name: str) -> None:
        touch("a.jpg", "inner/b.jpg")
        jobs, failures, _ = plan_jobs([name])
        assert failures == []
        root = here.parent / "here-restored"
        if name == "..":
            root = here.parent.parent / f"{here.parent.name}-restored" / "here"
        targets = [job.target.resolve() for job in jobs]
        assert targets == [root / "a.jpg", root / "inner" / "b.jpg"]

    def test_a_folder_to_a_file(self) -> None:
        touch("one/a.jpg", "two/a.jpg", "two/b.jpg")
        assert planned("one", out="x.png") == {"one/a.jpg": "x.png"}
        with pytest.raises(OptionError, match=r"x\.png.*2 images"):
            plan_jobs(["two"], out=Path("x.png"))

    def test_globs(self) -> None:
        touch("a1.jpg", "a2.png", "a3.txt", "b.jpg", "in/a4.jpg", "in/deep/a5.jpg", "a.jpg/b.txt")
        assert planned("a*") == {"a1.jpg": "a1.restored.jpg", "a2.png": "a2.restored.png"}
        assert list(planned("?[12].*")) == ["a1.jpg", "a2.png"]
        assert list(planned("**/a*.jpg")) == ["a1.jpg", "in/a4.jpg", "in/deep/a5.jpg"]
        assert planned("in/**/*.jpg", out="x") == {
            "in/a4.jpg": "x/a4.jpg",
            "in/deep/a5.jpg": "x/deep/a5.jpg",
        }
        assert planned("*/a4.jpg", out="x") == {"in/a4.jpg": "x/in/a4.jpg"}

    def test_a_name_with_brackets_is_a_name_where_it_exists(self) -> None:
        touch("a[1].jpg", "a1.jpg", "[x]/b.jpg")
        assert list(planned("a[1].jpg")) == ["a[1].jpg"]
        assert list(planned("[x]")) == ["[x]/b.jpg"]

    def test_a_name_with_a_tilde_is_a_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        touch("~photo.jpg", "home/a.jpg")
        assert planned("~photo.jpg") == {"~photo.jpg": "~photo.restored.jpg"}
        monkeypatch.setenv("HOME", "home")
        assert list(planned("~/a.jpg")) == ["home/a.jpg"]

    def test_what_an_earlier_run_wrote_is_left_out(self) -> None:
        touch("p/a.jpg", "p/a.restored.jpg", "p/a.restored.compare.jpg", "p/restored.jpg")
        touch("p/.hidden.jpg", "p/.thumbnails/a.jpg")
        assert list(planned("p")) == ["p/a.jpg", "p/restored.jpg"]
        assert list(planned("p/*.jpg")) == ["p/a.jpg", "p/restored.jpg"]
        assert planned("p/a.restored.jpg") == {"p/a.restored.jpg": "p/a.restored.restored.jpg"}

    def test_results_inside_the_folder_are_not_restored_again(self) -> None:
        touch("p/a.jpg", "p/out/a.jpg", "p/out/deep/a.jpg", "p/outer/b.jpg")
        expected = {"p/a.jpg": "p/out/a.jpg", "p/outer/b.jpg": "p/out/outer/b.jpg"}
        assert planned("p", out="p/out") == expected
        assert planned("p/outer", out="p") == {"p/outer/b.jpg": "p/b.jpg"}


@pytest.mark.usefixtures("here")
class TestClashes:
    def test_repeated_inputs_are_one_job(self, here: Path) -> None:
        touch("p/a.jpg", "p/b.jpg")
        inputs = ("p/a.jpg", "p/../p/a.jpg", str(here / "p/a.jpg"), "p/*.jpg", "p/a.*")
        jobs, failures, _ = plan_jobs(inputs)
        assert failures == []
        assert {(job.source.resolve(), job.target.resolve()) for job in jobs} == {
            (here / "p/a.jpg", here / "p/a.restored.jpg"),
            (here / "p/b.jpg", here / "p/b.restored.jpg"),
        }
        assert len(jobs) == 2

    def test_two_inputs_of_one_name(self) -> None:
        touch("p/a.jpg", "q/a.jpg", "q/b.jpg")
        sources, reasons = refused("p/a.jpg", "q/a.jpg", "q/b.jpg", out="x")
        assert sources == ["p/a.jpg", "q/b.jpg"]
        assert len(reasons) == 1
        assert "q/a.jpg" in reasons[0]
        assert "p/a.jpg" in reasons[0]

    def test_a_target_that_is_an_input(self) -> None:
        touch("a.jpg", "a.restored.jpg", "p/b.jpg")
        sources, reasons = refused("a.jpg", "a.restored.jpg")
        assert sources == ["a.restored.jpg"]
        assert ["a.restored.jpg" in reason for reason in reasons] == [True]
        assert refused("p", out="p")[0] == []
        assert refused("p/b.jpg", out="p")[0] == []
        assert refused("p/b.jpg", out="p/b.jpg")[0] == []

    def test_a_target_that_leads_to_an_input(self) -> None:
        touch("p/a.jpg", "q/b.jpg")
        Path("link").symlink_to("p")
        sources, reasons = refused("p/a.jpg", out="link")
        assert sources == []
        assert ["link/a.jpg" in reason for reason in reasons] == [True]

    def test_one_file_cannot_take_several_images(self) -> None:
        touch("a.jpg", "b.jpg")
        for inputs in (["a.jpg", "b.jpg"], ["*.jpg"]):
            with pytest.raises(OptionError, match=r"x\.png.*2 images"):
                plan_jobs(inputs, out=Path("x.png"))

    def test_inputs_that_stand_for_nothing(self) -> None:
        touch("empty/notes.txt", "a.jpg")
        sources, reasons = refused("empty", "*.gif", "a.jpg")
        assert sources == ["a.jpg"]
        assert len(reasons) == 2

    def test_links_that_lead_nowhere_are_jobs_that_fail(self, restorer: Restorer) -> None:
        Path("p").mkdir()
        Path("p/broken.jpg").symlink_to("nowhere.jpg")
        Path("p/circle.jpg").symlink_to("circle.jpg")
        for inputs in (["p"], ["p/*"], ["p/broken.jpg", "p/circle.jpg"]):
            jobs, failures, _ = plan_jobs(inputs)
            summary = Summary(failed=failures)
            run_jobs(restorer, jobs, summary=summary)
            assert summary.restored == []
            assert {str(failure.source) for failure in summary.failed} == {
                "p/broken.jpg",
                "p/circle.jpg",
            }
            assert len(summary.failed) == 2
            assert_named(summary.failed)

    def test_names_that_no_file_can_have(self, restorer: Restorer) -> None:
        photos("good.png")
        almost = "n" * (255 - len(".png")) + ".png"  # its target's name is too long
        photos(almost)
        inputs = ["n" * 300 + ".png", "good.png/a.png", almost, "good.png"]
        jobs, failures, _ = plan_jobs(inputs)
        for existing in ("skip", "overwrite"):
            summary = Summary(failed=list(failures))
            run_jobs(restorer, jobs, summary=summary, existing=existing)
            assert sorted(str(failure.source) for failure in summary.failed) == sorted(inputs[:3])
            assert_named(summary.failed)
            done = [*summary.restored, *summary.skipped]
            assert [str(job.target) for job in done] == ["good.restored.png"]


def passed(folder: Path, **options: Path) -> dict[str, list[str]]:
    """What is passed over, by the reason, and below the folder."""
    found: dict[str, list[str]] = {}
    for one in plan_jobs([str(folder)], **options).passed_over:
        found.setdefault(one.reason, []).append(one.path.relative_to(folder).as_posix())
    return {reason: sorted(paths) for reason, paths in found.items()}


@pytest.mark.usefixtures("here")
class TestWhatIsPassedOver:
    def test_every_file_of_a_folder_is_a_job_or_named(self) -> None:
        names = ["a.jpg", "b.jfif", "c.unheard", "d.mpo", "e.JPE", "notes.txt", "in/no-suffix"]
        hidden = [".hidden.jpg", ".cache/x.jpg", "in/.DS_Store"]
        earlier = ["a.restored.jpg", "in/b.png.compare.jpg"]
        touch(*(f"p/{name}" for name in (*names, *hidden, *earlier)))
        plan = plan_jobs(["p"])
        assert [str(job.target) for job in plan.jobs] == [
            f"p-restored/{name}" for name in ("a.jpg", "b.jfif", "d.mpo", "e.JPE")
        ]
        assert passed(Path("p")) == {
            "no images by their suffix": ["c.unheard", "in/no-suffix", "notes.txt"],
            "hidden": [".cache", ".hidden.jpg", "in/.DS_Store"],
            "results of an earlier run": sorted(earlier),
        }

    def test_folders_of_results_are_named(self) -> None:
        touch("p/a.jpg", "p/out/a.jpg", "q/b.jpg")
        assert passed(Path("p"), out=Path("p/out")) == {"folders of results": ["out"]}

    def test_what_a_glob_matches_is_a_job_or_named(self) -> None:
        touch("p/a.jpg", "p/notes.txt", "p/in/b.jpg", "p/a.restored.jpg", "p/.c.jpg")
        plan = plan_jobs(["p/*"])
        assert [str(job.source) for job in plan.jobs] == ["p/a.jpg"]
        assert {(str(one.path), one.reason) for one in plan.passed_over} == {
            ("p/notes.txt", "no images by their suffix"),
            ("p/in", "folders"),
            ("p/a.restored.jpg", "results of an earlier run"),
        }
        assert plan_jobs(["p/**/*"]).passed_over[0].reason != "folders"
        assert list(planned("p/.*.jpg")) == ["p/.c.jpg"]

    def test_linked_folders_are_followed_once(self) -> None:
        touch("disk/holiday/a.jpg", "disk/holiday/deep/b.jpg", "p/c.jpg", "p/own/d.jpg")
        for name, target in (
            ("p/holiday", "../disk/holiday"),
            ("p/same", "../disk/holiday"),
            ("p/another", "own"),
            ("p/own/loop", "../../p"),
            ("disk/holiday/deep/loop", ".."),
        ):
            Path(name).symlink_to(target)
        assert planned("p") == {
            "p/c.jpg": "p-restored/c.jpg",
            "p/holiday/a.jpg": "p-restored/holiday/a.jpg",
            "p/holiday/deep/b.jpg": "p-restored/holiday/deep/b.jpg",
            "p/own/d.jpg": "p-restored/own/d.jpg",
        }
        assert passed(Path("p")) == {
            "links to folders that are searched anyway": [
                "another", "holiday/deep/loop", "own/loop", "same",
            ]
        }  # fmt: skip

    def test_a_link_to_a_hidden_folder_is_followed(self) -> None:
        touch("p/.store/a.jpg")
        Path("p/album").symlink_to(".store")
        assert planned("p") == {"p/album/a.jpg": "p-restored/album/a.jpg"}


@pytest.mark.usefixtures("here")
class TestFormats:
    @pytest.mark.parametrize("format", ["png", "PNG", ".png"])
    def test_all_results_have_the_format_that_is_asked_for(self, format: str) -> None:
        touch("p/a.jpg", "p/b.tar.gif", "c.webp")
        jobs, _, _ = plan_jobs(["p", "c.webp"], format=format)
        assert [str(job.target) for job in jobs] == [
            "p-restored/a.png", "p-restored/b.tar.png", "c.restored.png",
        ]  # fmt: skip

    def test_lossless_results_of_formats_with_loss_are_png(self) -> None:
        names = ["a.jpg", "b.png", "c.webp", "d.tif", "e.gif", "f.bmp"]
        touch(*names)
        jobs, _, _ = plan_jobs(names, out=Path("x"), lossless=True)
        assert [job.target.name for job in jobs] == [
            "a.png", "b.png", "c.webp", "d.tif", "e.png", "f.bmp",
        ]  # fmt: skip

    def test_two_images_of_one_new_name_clash(self) -> None:
        touch("p/a.jpg", "p/a.png")
        jobs, failures, _ = plan_jobs(["p"], format="tif")
        assert [str(job.source) for job in jobs] == ["p/a.jpg"]
        assert "as 'p/a.jpg'" in failures[0].reason

    @pytest.mark.parametrize(
        ("out", "options", "words"),
        [
            (None, {"format": "heic5"}, r"heic5: is not written; use one of .*, png,"),
            ("x.jpg", {"format": "png"}, r"png: contradicts the name of the result, \*\.jpg"),
            ("x.jpg", {"lossless": True}, "jpg always loses something; use png"),
            (None, {"format": "avif", "lossless": True}, "avif always loses something"),
        ],
    )
    def test_what_cannot_be_is_refused_before_the_work(
        self, out: str | None, options: dict[str, Any], words: str
    ) -> None:
        touch("a.jpg")
        with pytest.raises(OptionError, match=words):
            plan_jobs(["a.jpg"], out=out and Path(out), **options)
        assert plan_jobs(["a.jpg"], out=Path("x.JPEG"), format="jpg").jobs[0].target == Path(
            "x.JPEG"
        )


def test_an_empty_input_is_not_the_current_folder(here: Path) -> None:
    touch("a.jpg")
    with pytest.raises(OptionError, match="an input is empty"):
        plan_jobs([""])


@pytest.mark.parametrize("out", ["taken", "taken/deeper"])
def test_a_file_is_no_folder_to_write_to(here: Path, out: str) -> None:
    touch("a.png", "b.png", "taken")
    with pytest.raises(OptionError, match=f"{out}: 'taken' is a file, no folder"):
        plan_jobs(["a.png", "b.png"], out=Path(out))


def test_links_to_one_photo_are_both_restored(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.png").touch()
    (folder / "b.png").symlink_to("a.png")
    jobs, failures, _ = plan_jobs([str(folder)])
    assert [job.target.name for job in jobs] == ["a.png", "b.png"]
    assert failures == []


def test_result_of_an_unknown_format_is_refused(tmp_path: Path) -> None:
    photo = tmp_path / "a.png"
    photo.touch()
    with pytest.raises(OptionError, match=r"\.unheard is not written"):
        plan_jobs([str(photo)], out=tmp_path / "b.unheard")
    jobs, _, _ = plan_jobs([str(photo)], out=tmp_path / "clear.2")
    assert jobs[0].target == tmp_path / "clear.2" / "a.png"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    (tmp_path / "a.png").touch()
    jobs, failures, _ = plan_jobs([str(tmp_path)])
    assert len(jobs) == 1
    assert "closed' cannot be searched" in failures[0].reason
