"""What a recipe would do, told before it is done: stages, steps, parameters, memory, data."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from fairweather.errors import DataError
from fairweather.models import Block, ChannelBlock, Network, create_model
from fairweather.models import count_parameters as count
from fairweather.training.batches import crops_of_a_part, split_pairs
from fairweather.training.recipe import Recipe
from fairweather.training.schedules import StageLength, length_of

MOMENTS_OF_ADAM = 2


@dataclass(frozen=True)
class StagePlan:
    """A stage in numbers; the length is None while the images are not known.

    Attributes:
        length: steps, of which warm-up, and how often is validated.
        memory_bytes: estimate for one device: parameters, gradients, optimiser, averaged weights,
            and what the backward pass needs of the forward pass.
    """

    length: StageLength | None
    memory_bytes: int


@dataclass(frozen=True)
class Plan:
    """What `plan_training` found out."""

    parameters: int
    training_images: int | None
    held_out_images: int | None
    data_fault: str | None
    stages: tuple[StagePlan, ...]


def plan_training(recipe: Recipe, *, data: Path | None, devices: int = 1) -> Plan:
    """Looks at the data and at the network's shapes; trains nothing and writes nothing.

    Args:
        recipe: what would be trained.
        data: the folder that the recipe's folders are relative to, if it is there.
        devices: over how many the batch is spread.

    Raises:
        DataError: if a batch does not divide among the devices.
    """
    training_images = held_out_images = fault = None
    if data is not None:
        try:
            training_images, held_out_images = map(len, split_pairs(recipe, data))
        except DataError as error:
            fault = str(error)
    stages = []
    for stage in recipe.stages:
        length = None
        every = recipe.validate_every_steps
        if training_images is not None or (stage.epochs is None and every is not None):
            length = length_of(stage, images=training_images or 1, validate_every_steps=every)
        crops = crops_of_a_part(stage, devices=devices)
        memory = estimate_memory(recipe, crops=crops, crop_px=stage.crop_px)
        stages.append(StagePlan(length=length, memory_bytes=memory))
    return Plan(
        parameters=count(create_model(recipe.config)),
        training_images=training_images,
        held_out_images=held_out_images,
        data_fault=fault,
        stages=tuple(stages),
    )


def estimate_memory(recipe: Recipe, *, crops: int, crop_px: int) -> int:
    """Bytes that a training step needs on one device, without the framework itself.

    The forward pass runs on tensors that have shapes but no values, and what autograd saves of it
    is added up. Workspaces of single operations and the degradation come on top.
    """
    lower = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(recipe.precision)
    dtype = torch.float64 if recipe.precision == "64-true" else torch.float32
    model = create_model(recipe.config).to(dtype).train()
    mode = FakeTensorMode()
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    fakes: dict[str, Tensor] = {name: mode.from_tensor(tensor) for name, tensor in state.items()}
    saved = SavedTensors(model, again=recipe.activation_checkpointing)
    with (
        mode,
        torch.autocast("cpu", lower, enabled=lower is not None),
        torch.autograd.graph.saved_tensors_hooks(saved.note, lambda tensor: tensor),
    ):
        image = torch.empty(crops, 3, crop_px, crop_px, dtype=dtype)
        torch.func.functional_call(model, fakes, (image,))
    activations = saved.count_bytes(without=fakes.values())
    parameters = sum(p.numel() * p.element_size() for p in model.parameters())
    averaged = recipe.ema_decay is not None
    return activations + parameters * (2 + MOMENTS_OF_ADAM + int(averaged))


class SavedTensors:
    """What autograd saves of a forward pass, by the block of the network that it is saved in."""

    def __init__(self, model: Network, *, again: bool):
        """Watch a model; `again` if a run would compute what lies inside the blocks again."""
        self.again = again
        self._of_block: dict[nn.Module | None, dict[int, torch.UntypedStorage]] = {None: {}}
        self._block: nn.Module | None = None
        for block in model.modules():
            if isinstance(block, Block | ChannelBlock):
                block.register_forward_pre_hook(self._enter)
                block.register_forward_hook(self._leave)

    def note(self, tensor: Tensor) -> Tensor:
        """Called with each tensor that is saved."""
        storage = tensor.untyped_storage()
        # Held, so that no later storage gets its number.
        self._of_block.setdefault(self._block, {})[storage._cdata] = storage
        return tensor

    def _enter(self, block: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if self.again:
            self.note(inputs[0])  # from which a block is computed again
        self._block = block

    def _leave(self, block: nn.Module, inputs: object, output: object) -> None:
        self._block = None

    def count_bytes(self, *, without: Iterable[Tensor]) -> int:
        """Bytes of all blocks, or of the largest one if they are computed again one by one."""
        seen = {tensor.untyped_storage()._cdata for tensor in without}
        sizes = []
        for storages in self._of_block.values():  # first what lies outside of the blocks
            sizes.append(sum(s.nbytes() for number, s in storages.items() if number not in seen))
            seen |= storages.keys()
        outside, *blocks = sizes
        return outside + (max(blocks) if self.again else sum(blocks))
