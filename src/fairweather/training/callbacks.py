"""What Lightning calls while a stage runs: checkpoints, when it ends, and pictures."""

import logging
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint, EarlyStopping, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from fairweather.files import replacing
from fairweather.training.faults import cannot_write, describe_fault, find_nonfinite
from fairweather.training.run import TRIPTYCHS, StageRun, is_first_process

log = logging.getLogger(__name__)

LAST, BEFORE_LAST = "last.ckpt", "before-last.ckpt"


class WholeFiles(TorchCheckpointIO):
    """Writes a checkpoint under another name first: a killed run leaves the old or the new one.

    Of the checkpoints to resume from, the one before is kept, too: a disk may spoil the last.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        path, temporary = Path(path), Path(f"{path}.tmp")
        try:
            super().save_checkpoint(checkpoint, temporary, storage_options)
            if path.name == LAST and path.exists():
                path.replace(path.with_name(BEFORE_LAST))
            temporary.replace(path)
        except (OSError, RuntimeError) as error:  # the second is how torch says that a disk is full
            raise cannot_write(path, error) from error
        finally:
            temporary.unlink(missing_ok=True)


def find_resume_point(folder: Path) -> Path | None:
    """Return the checkpoint that a stopped stage goes on from, the last one that is whole."""
    for name in (LAST, BEFORE_LAST):
        path = folder / name
        if not path.exists():
            continue
        try:
            torch.load(path, map_location="cpu", weights_only=True)["global_step"]
        except Exception as error:  # whatever the unpickler makes of broken bytes
            if is_first_process():
                log.warning("%s is damaged: %s", path, str(error).partition("\n")[0] or "no bytes")
            continue
        if name != LAST and is_first_process():
            # A copy, so that the next checkpoint does not replace the only good one.
            with replacing(folder / LAST) as file:
                file.write(path.read_bytes())
        return path
    return None


class ResumePoint(Checkpoint):
    """Writes the checkpoint to resume from, every so many steps and after every validation.

    Never before a validation of the same step: Lightning would take it as done when it resumes, and
    would not know its score, so that worse weights could replace the best ones. Never between the
    parts of an accumulated batch, since gradients are in no checkpoint.
    """

    def __init__(self, path: Path, *, every_steps: int):
        self.path = path
        self.every_steps = every_steps

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        done = batch_idx + 1
        validates = done % trainer.val_check_interval == 0 or trainer.should_stop
        between = done % trainer.accumulate_grad_batches
        if trainer.global_step % self.every_steps == 0 and not validates and not between:
            self._save(trainer, pl_module)

    def on_validation_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        self._save(trainer, pl_module)

    def _save(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        spoilt = find_nonfinite(dict(module.named_parameters()))
        if spoilt:
            name = spoilt.removeprefix("model.")
            what = f"the weights of {name} are not finite"
            raise describe_fault(what, step=trainer.global_step)
        trainer.save_checkpoint(self.path)


class BestPoint(ModelCheckpoint):
    """Keeps `best.ckpt`, and knows its score also in a run folder that was moved."""

    def __init__(self, folder: Path):
        super().__init__(
            folder, filename="best", monitor="val_psnr_db", mode="max", enable_version_counter=False
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As Lightning's, which forgets the best score if the checkpoint is of another folder."""
        here = str(self.dirpath)

        def moved(path: str) -> str:
            return path.replace(state_dict["dirpath"], here, 1)

        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        best = {moved(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict(
            {
                **state_dict,
                **{name: moved(state_dict[name]) for name in paths},
                "best_k_models": best,
                "dirpath": here,
            }
        )


class Patience(EarlyStopping):
    """Ends a stage that gets no better; one that was over when its process was killed stays so."""

    def __init__(self, validations: int):
        super().__init__("val_psnr_db", mode="max", patience=validations)

    @property
    def is_exhausted(self) -> bool:
        """Whether it was this that ended the stage."""
        return self.wait_count >= self.patience

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        trainer.should_stop = trainer.should_stop or self.is_exhausted


def validate_last_step(trainer: lightning.Trainer, *_: object) -> None:
    """Have the last step validated where no interval ends: else its weights could not be kept."""
    if trainer.global_step == trainer.max_steps:
        trainer.should_stop = True  # before which Lightning validates


class Triptychs(Callback):
    """Writes degraded | restored | clean of the first held-out images at every validation."""

    def __init__(self, stage: StageRun):
        self.stage = stage

    def on_validation_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if not trainer.is_global_zero or batch_idx >= TRIPTYCHS or not outputs:
            return
        images = tuple(
            outputs[side][0].detach().float().permute(1, 2, 0).cpu().numpy()
            for side in ("degraded", "restored", "clean")
        )
        number = int(outputs["number"])
        self.stage.write_triptych(images, step=trainer.global_step, number=number)
