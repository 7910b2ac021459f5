import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from fairweather.errors import FairweatherError, OptionError
from fairweather.imaging import read_image
from fairweather.models import create_model
from fairweather.restoration import Failure, Job, Restored, Restorer, Summary, plan_jobs, run_jobs

PHOTO = np.ascontiguousarray(data.astronaut()[20:60, 180:232])


@pytest.fixture(scope="module")
def restorer() -> Restorer:
    torch.manual_seed(0)
    return Restorer(create_model("ast_n", init="official"), device="cpu")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def photos(*names: str) -> None:
    touch(*names)
    for name in names:
        Image.fromarray(PHOTO).save(name)


def planned(*inputs: str, out: str | None = None) -> dict[str, str]:
    """Source → target; none of the inputs fails."""
    jobs, failures = plan_jobs(inputs, out=None if out is None else Path(out))
    assert failures == []
    return {str(job.source): str(job.target) for job in jobs}


def assert_named(failures: list[Failure]) -> None:
    """The reason is all that the command prints of a failure."""
    for failure in failures:
        assert failure.reason.startswith(f"'{failure.source}'")
        assert "\n" not in failure.reason


def refused(*inputs: str, out: str | None = None) -> tuple[list[str], list[str]]:
    """The sources planned, and the reasons of the failures."""
    jobs, failures = plan_jobs(inputs, out=None if out is None else Path(out))
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
        jobs, failures = plan_jobs([name])
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
            "in/deep/a5.jpg": "x/a5.jpg",
        }

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
        jobs, failures = plan_jobs(inputs)
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
            jobs, failures = plan_jobs(inputs)
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
        jobs, failures = plan_jobs(inputs)
        for existing in ("skip", "overwrite"):
            summary = Summary(failed=list(failures))
            run_jobs(restorer, jobs, summary=summary, existing=existing)
            assert sorted(str(failure.source) for failure in summary.failed) == sorted(inputs[:3])
            assert_named(summary.failed)
            done = [*summary.restored, *summary.skipped]
            assert [str(job.target) for job in done] == ["good.restored.png"]


@pytest.mark.usefixtures("here")
class TestRuns:
    def test_a_failure_does_not_stop_the_rest(self, restorer: Restorer) -> None:
        photos("p/a.png", "p/c.png", "p/e.png")
        Path("p/b.png").write_bytes(b"")
        Path("p/d.png").write_bytes(Path("p/a.png").read_bytes()[:500])
        jobs, _ = plan_jobs(["p"])
        summary, outcomes, tiles = Summary(), [], []

        def on_start(job: Job) -> object:
            return lambda done, total: tiles.append((job.source.name, done, total))

        run_jobs(restorer, jobs, summary=summary, on_start=on_start, on_done=outcomes.append)
        assert [record.source.name for record in summary.restored] == ["a.png", "c.png", "e.png"]
        assert [failure.source.name for failure in summary.failed] == ["b.png", "d.png"]
        assert_named(summary.failed)
        assert summary.skipped == []
        assert [type(outcome) for outcome in outcomes] == [
            Restored, Failure, Restored, Failure, Restored,
        ]  # fmt: skip
        assert tiles == [(name, 1, 1) for name in ("a.png", "c.png", "e.png")]
        written = sorted(path.name for path in Path("p-restored").iterdir())
        assert written == ["a.png", "c.png", "e.png"]
        expected = restorer(PHOTO)
        assert (expected != PHOTO).any()
        np.testing.assert_array_equal(read_image("p-restored/e.png").pixels, expected)
        for name in ("a.png", "c.png"):
            np.testing.assert_array_equal(read_image(f"p/{name}").pixels, PHOTO)

    def test_existing_targets(self, restorer: Restorer) -> None:
        photos("a.png", "b.png")
        jobs, _ = plan_jobs(["a.png", "b.png"])
        touch("a.restored.png")
        refusing = Summary()
        run_jobs(restorer, jobs, summary=refusing)
        assert [failure.source.name for failure in refusing.failed] == ["a.png"]
        assert_named(refusing.failed)
        assert "'a.restored.png' exists already" in refusing.failed[0].reason
        assert [record.source.name for record in refusing.restored] == ["b.png"]
        assert Path("a.restored.png").read_bytes() == b""

        skipping, outcomes = Summary(), []
        run_jobs(restorer, jobs, summary=skipping, existing="skip", on_done=outcomes.append)
        assert (skipping.skipped, skipping.restored, skipping.failed) == (jobs, [], [])
        assert outcomes == jobs
        assert Path("a.restored.png").read_bytes() == b""

        overwriting = Summary()
        run_jobs(restorer, jobs, summary=overwriting, existing="overwrite")
        assert [record.source.name for record in overwriting.restored] == ["a.png", "b.png"]
        np.testing.assert_array_equal(read_image("a.restored.png").pixels, restorer(PHOTO))

    def test_compare(self, restorer: Restorer) -> None:
        photos("a.png")
        jobs, _ = plan_jobs(["a.png"], out=Path("x"))
        run_jobs(restorer, jobs, summary=Summary(), compare=True)
        assert sorted(path.name for path in Path("x").iterdir()) == ["a.png", "a.png.compare.jpg"]
        with Image.open("x/a.png.compare.jpg") as compare:
            assert compare.size == (52 + 8 + 52, 40)

    def test_large_images_are_refused(self, restorer: Restorer) -> None:
        photos("a.png", "b.png")
        Image.fromarray(PHOTO[:10]).save("b.png")
        jobs, _ = plan_jobs(["*.png"])
        summary = Summary()
        run_jobs(restorer, jobs, summary=summary, max_pixels=PHOTO[..., 0].size - 1)
        assert [failure.source.name for failure in summary.failed] == ["a.png"]
        assert [record.source.name for record in summary.restored] == ["b.png"]

    def test_a_folder_that_cannot_be_made(self, restorer: Restorer) -> None:
        photos("a.png", "b.png")
        touch("taken")
        for out in ("taken", "taken/deeper"):
            jobs, _ = plan_jobs(["a.png", "b.png"], out=Path(out))
            summary = Summary()
            run_jobs(restorer, jobs, summary=summary)
            assert [failure.source.name for failure in summary.failed] == ["a.png", "b.png"]
            assert_named(summary.failed)
            assert ["taken" in failure.reason for failure in summary.failed] == [True, True]

    @pytest.mark.parametrize("error", [FairweatherError("not even a tile fits"), MemoryError()])
    def test_an_image_too_large_for_the_memory(
        self, restorer: Restorer, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        photos("a.png", "b.png")
        jobs, _ = plan_jobs(["a.png", "b.png"])
        restore_file = restorer.restore_file

        def scarce(source: Path, *rest: object, **options: object) -> Restored:
            if source.name == "a.png":
                raise error
            return restore_file(source, *rest, **options)

        monkeypatch.setattr(restorer, "restore_file", scarce)
        summary = Summary()
        run_jobs(restorer, jobs, summary=summary)
        assert [record.source.name for record in summary.restored] == ["b.png"]
        assert [failure.source.name for failure in summary.failed] == ["a.png"]
        assert_named(summary.failed)
        assert "memory" in summary.failed[0].reason or "tile" in summary.failed[0].reason

    def test_the_summary_is_true_after_an_interrupt(self, restorer: Restorer) -> None:
        photos("a.png", "b.png", "c.png")
        jobs, _ = plan_jobs(["*.png"])
        summary = Summary()

        def on_start(job: Job) -> None:
            if job.source.name == "b.png":
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_jobs(restorer, jobs, summary=summary, on_start=on_start)
        assert [record.source.name for record in summary.restored] == ["a.png"]
        assert summary.failed == summary.skipped == []

    @pytest.mark.skipif(os.name == "nt", reason="names are Unicode there")
    def test_names_that_are_not_unicode(self, restorer: Restorer) -> None:
        photos("p/good.png")
        strange = Path(os.fsdecode(b"p/\xff\xfe.png"))
        strange.write_bytes(Path("p/good.png").read_bytes())
        jobs, failures = plan_jobs(["p"])
        summary = Summary(failed=failures)
        run_jobs(restorer, jobs, summary=summary)
        assert summary.failed == []
        assert {record.target.name for record in summary.restored} == {"good.png", strange.name}


def test_links_to_one_photo_are_both_restored(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.png").touch()
    (folder / "b.png").symlink_to("a.png")
    jobs, failures = plan_jobs([str(folder)])
    assert [job.target.name for job in jobs] == ["a.png", "b.png"]
    assert failures == []


def test_result_of_an_unknown_format_is_refused(tmp_path: Path) -> None:
    photo = tmp_path / "a.png"
    photo.touch()
    with pytest.raises(OptionError, match=r"\.heic is not written"):
        plan_jobs([str(photo)], out=tmp_path / "b.heic")
    jobs, _ = plan_jobs([str(photo)], out=tmp_path / "clear.2")
    assert jobs[0].target == tmp_path / "clear.2" / "a.png"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    (tmp_path / "a.png").touch()
    jobs, failures = plan_jobs([str(tmp_path)])
    assert len(jobs) == 1
    assert "closed' cannot be searched" in failures[0].reason
