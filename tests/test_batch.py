import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from photo_folders import PHOTO, photos, touch
from PIL import Image

from fairweather.errors import FairweatherError
from fairweather.imaging import read_image
from fairweather.models import create_model
from fairweather.restoration import Failure, Job, Restored, Restorer, Summary, plan_jobs, run_jobs


@pytest.fixture(scope="module")
def restorer() -> Restorer:
    torch.manual_seed(0)
    return Restorer(create_model("ast_n", init="official"), device="cpu")


def assert_named(failures: list[Failure]) -> None:
    """The reason is all that the command prints of a failure."""
    for failure in failures:
        assert failure.reason.startswith(f"'{failure.source}'")
        assert "\n" not in failure.reason


@pytest.mark.usefixtures("here")
class TestRuns:
    @pytest.mark.parametrize("count", [1, 3])
    def test_a_failure_does_not_stop_the_rest(
        self, restorer: Restorer, threads: Callable[[int], None], count: int
    ) -> None:
        threads(count)
        photos("p/a.png", "p/c.png", "p/e.png")
        Path("p/b.png").write_bytes(b"")
        Path("p/d.png").write_bytes(Path("p/a.png").read_bytes()[:500])
        jobs, _, _ = plan_jobs(["p"])
        summary, outcomes, tiles = Summary(), [], []

        def on_start(job: Job) -> object:
            return lambda done, total: tiles.append((job.source.name, done, total))

        run_jobs(restorer, jobs, summary=summary, on_start=on_start, on_done=outcomes.append)
        assert [record.source.name for record in summary.restored] == ["a.png", "c.png", "e.png"]
        assert [failure.source.name for failure in summary.failed] == ["b.png", "d.png"]
        assert_named(summary.failed)
        assert summary.skipped == []
        told = {outcome.source.name: type(outcome) for outcome in outcomes}
        assert told == {
            "a.png": Restored, "b.png": Failure, "c.png": Restored, "d.png": Failure,
            "e.png": Restored,
        }  # fmt: skip
        assert len(outcomes) == 5
        assert sorted(tiles) == [(name, 1, 1) for name in ("a.png", "c.png", "e.png")]
        written = sorted(path.name for path in Path("p-restored").iterdir())
        assert written == ["a.png", "c.png", "e.png"]
        expected = restorer(PHOTO)
        assert (expected != PHOTO).any()
        np.testing.assert_array_equal(read_image("p-restored/e.png").pixels, expected)
        for name in ("a.png", "c.png"):
            np.testing.assert_array_equal(read_image(f"p/{name}").pixels, PHOTO)

    def test_existing_targets(self, restorer: Restorer) -> None:
        photos("a.png", "b.png")
        jobs, _, _ = plan_jobs(["a.png", "b.png"])
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
        assert sorted(outcomes, key=jobs.index) == jobs
        assert Path("a.restored.png").read_bytes() == b""

        overwriting = Summary()
        run_jobs(restorer, jobs, summary=overwriting, existing="overwrite")
        assert [record.source.name for record in overwriting.restored] == ["a.png", "b.png"]
        np.testing.assert_array_equal(read_image("a.restored.png").pixels, restorer(PHOTO))

    def test_skipping_makes_up_for_missing_comparisons(self, restorer: Restorer) -> None:
        photos("a.png", "b.png", "c.png")
        jobs, _, _ = plan_jobs(["?.png"], out=Path("x"))
        run_jobs(restorer, jobs[:2], summary=Summary())
        compare = Path("x/b.png.compare.jpg")
        compare.write_bytes(b"is there")
        Image.fromarray(PHOTO[:20]).save("x/a.png")  # not of this photo
        for name in ("a.png.compare.jpg", "c.png.compare.jpg"):
            assert not Path("x", name).exists()
        summary = Summary()
        run_jobs(restorer, jobs, summary=summary, existing="skip", compare=True)
        assert [job.source.name for job in summary.skipped] == ["b.png"]
        assert [record.source.name for record in summary.restored] == ["c.png"]
        assert "has not the size of 'x/a.png'" in summary.failed[0].reason
        assert compare.read_bytes() == b"is there"
        compare.unlink()
        run_jobs(restorer, jobs, summary=(again := Summary()), existing="skip", compare=True)
        assert [job.source.name for job in again.skipped] == ["b.png", "c.png"]
        with Image.open(compare) as picture:
            assert picture.size == (52 + 8 + 52, 40)

    @pytest.mark.parametrize("existing", ["skip", "refuse"])
    def test_a_target_of_another_process_is_skipped_if_targets_are(
        self, restorer: Restorer, existing: Any
    ) -> None:
        """Two runs on one folder: the other one writes while this one restores."""
        photos("a.png", "b.png")
        jobs, _, _ = plan_jobs(["?.png"])
        summary = Summary()

        def on_start(job: Job) -> Any:
            return lambda done, total: Path("a.restored.png").write_bytes(b"theirs")

        run_jobs(restorer, jobs, summary=summary, existing=existing, on_start=on_start)
        assert [record.source.name for record in summary.restored] == ["b.png"]
        assert len(summary.skipped) == (existing == "skip")
        assert len(summary.failed) == (existing == "refuse")
        assert Path("a.restored.png").read_bytes() == b"theirs"

    def test_compare(self, restorer: Restorer) -> None:
        photos("a.png")
        jobs, _, _ = plan_jobs(["a.png"], out=Path("x"))
        run_jobs(restorer, jobs, summary=Summary(), compare=True)
        assert sorted(path.name for path in Path("x").iterdir()) == ["a.png", "a.png.compare.jpg"]
        with Image.open("x/a.png.compare.jpg") as compare:
            assert compare.size == (52 + 8 + 52, 40)

    def test_large_images_are_refused(self, restorer: Restorer) -> None:
        photos("a.png", "b.png")
        Image.fromarray(PHOTO[:10]).save("b.png")
        jobs, _, _ = plan_jobs(["*.png"])
        summary = Summary()
        run_jobs(restorer, jobs, summary=summary, max_pixels=PHOTO[..., 0].size - 1)
        assert [failure.source.name for failure in summary.failed] == ["a.png"]
        assert [record.source.name for record in summary.restored] == ["b.png"]

    def test_a_folder_that_cannot_be_made(self, restorer: Restorer) -> None:
        photos("a.png", "b.png")
        jobs, _, _ = plan_jobs(["a.png", "b.png"], out=Path("taken/deeper"))
        touch("taken")
        summary = Summary()
        run_jobs(restorer, jobs, summary=summary)
        assert [failure.source.name for failure in summary.failed] == ["a.png", "b.png"]
        assert_named(summary.failed)
        assert ["taken" in failure.reason for failure in summary.failed] == [True, True]

    @pytest.mark.parametrize("name", ["a.xyz", "a.webp"])
    def test_what_cannot_be_written_is_refused_before_the_work(
        self, restorer: Restorer, name: str
    ) -> None:
        Image.fromarray(np.zeros((8, 16384, 3), np.uint8)).save("wide.png")
        tiles, summary = [], Summary()
        jobs = [Job(Path("wide.png"), Path(name))]
        run_jobs(
            restorer,
            jobs,
            summary=summary,
            on_start=lambda job: lambda done, total: tiles.append(done),
        )
        assert_named(summary.failed)
        assert name in summary.failed[0].reason
        assert tiles == []

    def test_a_read_only_folder_is_refused_before_the_work(
        self, restorer: Restorer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        photos("a.png")
        monkeypatch.setattr(os, "access", lambda path, mode: not path.endswith("closed"))
        Path("closed").mkdir()
        tiles, summary = [], Summary()
        jobs, _, _ = plan_jobs(["a.png"], out=Path("closed"))
        run_jobs(
            restorer, jobs, summary=summary, on_start=lambda job: lambda *done: tiles.append(done)
        )
        assert "the folder 'closed' is read-only" in summary.failed[0].reason
        assert tiles == []

    @pytest.mark.parametrize(
        "error",
        [
            FairweatherError("not even a tile fits"),
            MemoryError(),
            RuntimeError("could not create\na tile"),
            ValueError("of an engine: no tile"),
        ],
    )
    def test_an_image_too_large_for_the_memory(
        self, restorer: Restorer, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        photos("a.png", "b.png")
        jobs, _, _ = plan_jobs(["a.png", "b.png"])
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

    @pytest.mark.parametrize("count", [1, 2])
    def test_the_summary_is_true_after_an_interrupt(
        self, restorer: Restorer, threads: Callable[[int], None], count: int
    ) -> None:
        threads(count)
        photos(*(f"{letter}.png" for letter in "abcdefghi"))
        jobs, _, _ = plan_jobs(["*.png"])
        summary = Summary()

        def on_start(job: Job) -> None:
            if job.source.name == "b.png":
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_jobs(restorer, jobs, summary=summary, on_start=on_start)
        done = {str(record.target) for record in summary.restored}
        assert done == {str(path) for path in Path().iterdir() if ".restored" in path.name}
        assert len(done) < 8
        assert summary.failed == summary.skipped == []

    @pytest.mark.skipif(os.name == "nt", reason="names are Unicode there")
    def test_names_that_are_not_unicode(self, restorer: Restorer) -> None:
        photos("p/good.png")
        strange = Path(os.fsdecode(b"p/\xff\xfe.png"))
        strange.write_bytes(Path("p/good.png").read_bytes())
        jobs, failures, _ = plan_jobs(["p"])
        summary = Summary(failed=failures)
        run_jobs(restorer, jobs, summary=summary)
        assert summary.failed == []
        assert {record.target.name for record in summary.restored} == {"good.png", strange.name}
