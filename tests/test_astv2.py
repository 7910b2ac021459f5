"""AST-v2 against the official code's numbers, and its own promises."""

import dataclasses

import numpy as np
import pytest
import torch
from parity import SMALL_V2, known_state_v2, known_weight, load, random_v2, relative_error
from torch import Tensor, nn

from fairweather import Restorer, create_model, load_model
from fairweather.errors import CheckpointError, OptionError
from fairweather.export import export_onnx
from fairweather.models import (
    PRESETS,
    ASTv2,
    ASTv2Config,
    count_parameters,
    from_official_v2,
    infer_config,
    list_models,
    plain_kernels,
    read_metadata,
    save_model,
    save_official,
    to_official_v2,
)
from fairweather.models.astv2 import (
    ChannelAttention,
    ChannelBlock,
    GroupedFeatureRefinement,
    channels_to_space,
    space_to_channels,
)

FLOAT64, FLOAT32 = 1e-9, 3e-5


@pytest.fixture(scope="module")
def known() -> ASTv2:
    """The published network with the known weights; do not change it."""
    model = ASTv2(ASTv2Config())
    model.load_state_dict(from_official_v2(known_state_v2()))
    return model.eval()


def of_official_names(prefix: str, module: nn.Module, *, ours: str) -> nn.Module:
    """A module of ours with the known weights of the official one of that prefix."""
    names = to_official_v2({f"{ours}{name}": one for name, one in module.state_dict().items()})
    assert all(name.startswith(prefix) for name in names)
    official = {name: known_weight(name, tensor.shape) for name, tensor in names.items()}
    state = {name.removeprefix(ours): one for name, one in from_official_v2(official).items()}
    module.load_state_dict(state)
    return module.double().eval()


def applied(name: str, module: nn.Module) -> tuple[Tensor, np.ndarray]:
    archive = load("blocks_v2")
    tokens = torch.from_numpy(archive[f"{name}.input"]).double().permute(0, 2, 3, 1)
    with torch.no_grad():
        return module(tokens).permute(0, 3, 1, 2), archive[f"{name}.output"]


@pytest.mark.parametrize(
    ("name", "module", "prefix", "ours"),
    [
        ("attention", ChannelAttention(96, 2), "decoder_level1.0.attn.", "decoder.2.0.attention."),
        (
            "feed_forward",
            GroupedFeatureRefinement(96, 384, groups=12),
            "decoder_level1.0.ffn.",
            "decoder.2.0.feed_forward.",
        ),
        ("block", ChannelBlock(ASTv2Config(), 96, heads=2), "decoder_level1.0.", "decoder.2.0."),
        (
            "encoder_block",
            ChannelBlock(ASTv2Config(), 96, heads=0),
            "encoder_level2.0.",
            "encoder.1.0.",
        ),
    ],
)
def test_each_block_gives_the_official_numbers(
    name: str, module: nn.Module, prefix: str, ours: str
) -> None:
    result, official = applied(name, of_official_names(prefix, module, ours=ours))
    assert relative_error(result, official) < FLOAT64


def test_scales_give_the_official_numbers(known: ASTv2) -> None:
    archive = load("blocks_v2")
    for name, layer, reshape in (
        ("downsample", known.downsample[0], space_to_channels),
        ("upsample", known.upsample[1], channels_to_space),
    ):
        image = torch.from_numpy(archive[f"{name}.input"]).double()
        with torch.no_grad():
            convolved = nn.functional.conv2d(image, layer.weight.double(), padding=1)
        ours = reshape(convolved.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        assert relative_error(ours, archive[f"{name}.output"]) < FLOAT64


def test_the_network_gives_the_official_numbers(known: ASTv2) -> None:
    archive = load("models_v2")
    image = torch.from_numpy(archive["astv2_spad.input"]).permute(2, 0, 1)[None]
    twin = ASTv2(known.config)
    twin.load_state_dict(known.state_dict())
    with torch.no_grad():
        precise = twin.eval().double()(image.double() / 255)[0]
        fast = known(image.float() / 255)[0]
        with plain_kernels():
            plain = known(image.float() / 255)[0]
    assert relative_error(precise, archive["astv2_spad.output64"]) < FLOAT64
    assert relative_error(fast, archive["astv2_spad.output64"]) < FLOAT32
    assert relative_error(plain, archive["astv2_spad.output64"]) < FLOAT32
    assert count_parameters(known) == 8_996_076


@pytest.mark.parametrize("size", [(1, 1), (3, 517), (200, 200), (721, 1283)])
def test_any_size_and_each_image_by_itself(size: tuple[int, int]) -> None:
    model, images = random_v2(), torch.rand(2, 3, *size)
    with torch.no_grad():
        both, second = model(images), model(images[1:])
    assert both.shape == images.shape
    assert both.isfinite().all()
    torch.testing.assert_close(both[1:], second, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(8, 8), (40, 64), (64, 520), (1, 24)])
@pytest.mark.parametrize("groups", [1, 2])
def test_bands_give_the_numbers_of_plain_pytorch(
    size: tuple[int, int], groups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cpu_channels.BAND_BYTES", "cpu_strips.BAND_BYTES"):
        monkeypatch.setattr(f"fairweather.models.fast.{name}", 1 << 12)  # many bands
    model, image = random_v2(groups=groups), torch.rand(2, 3, *size)
    with torch.no_grad():
        fast = model(image)
        with plain_kernels():
            plain = model(image)
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-4)


def test_gradients_are_those_with_activations_computed_again() -> None:
    model, image = random_v2().train(), torch.rand(1, 3, 24, 32)
    gradients = []
    for again in (False, True):
        model.activation_checkpointing = again
        model.zero_grad()
        model(image).square().mean().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    for kept, computed in zip(*gradients, strict=True):
        assert kept.abs().max() > 0
        torch.testing.assert_close(kept, computed)


def test_starts_as_the_identity() -> None:
    model, image = create_model(SMALL_V2), torch.rand(1, 3, 9, 17)
    assert torch.equal(model(image), image)


@pytest.mark.parametrize("preset", ["astv2_n", "astv2", "astv2_l"])
def test_presets(preset: str) -> None:
    (entry,) = (entry for entry in list_models() if entry.name == preset)
    expected = {"astv2_n": (0.3, 3.2), "astv2": (9.0, 98.2), "astv2_l": (13.2, 197.0)}[preset]
    assert (round(entry.parameters / 1e6, 1), round(entry.gmacs, 1)) == expected


def test_the_small_preset_costs_no_more_than_that_of_ast() -> None:
    gmacs = {entry.name: entry.gmacs for entry in list_models()}
    assert gmacs["astv2_n"] <= gmacs["ast_n"]


@pytest.mark.parametrize("wrapper", ["params", "state_dict", ""])
@pytest.mark.parametrize("prefix", ["module.", ""])
def test_official_checkpoints_come_back_bit_for_bit(tmp_path, wrapper: str, prefix: str) -> None:
    official = to_official_v2(random_v2().state_dict())
    named = {f"{prefix}{name}": tensor for name, tensor in official.items()}
    torch.save({wrapper: named} if wrapper else named, tmp_path / "theirs.pth")
    model = load_model(tmp_path / "theirs.pth")
    assert model.config == SMALL_V2
    save_official(model, tmp_path / "ours.pth")
    written = torch.load(tmp_path / "ours.pth", weights_only=True)["params"]
    assert list(written) == list(official)
    assert all(torch.equal(written[name], tensor) for name, tensor in official.items())


@pytest.mark.parametrize("preset", ["astv2_n", "astv2"])
def test_every_option_is_told_from_official_shapes(preset: str) -> None:
    model = create_model(preset, init="official")
    assert infer_config(from_official_v2(to_official_v2(model.state_dict()))) == PRESETS[preset]


@pytest.mark.parametrize("ratio", [2.66, 1.3, 4.0])
def test_a_ratio_told_from_shapes_gives_the_same_shapes(ratio: float) -> None:
    model = ASTv2(dataclasses.replace(SMALL_V2, embed_dim=48, groups=12, mlp_ratio=ratio))
    twin = ASTv2(infer_config(model.state_dict()))
    twin.load_state_dict(model.state_dict())


def test_safetensors_come_back(tmp_path) -> None:
    model = random_v2(symmetries="flips", proxy_px=64)
    save_model(model, tmp_path / "ours.safetensors", metadata={"task": "rain"})
    loaded = load_model(tmp_path / "ours.safetensors")
    assert isinstance(loaded, ASTv2)
    assert loaded.config == model.config
    assert read_metadata(tmp_path / "ours.safetensors")["architecture"] == "astv2"
    with pytest.raises(OptionError, match="AST-v2, which has no windows"):
        load_model(tmp_path / "ours.safetensors", bottleneck_shift=True)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("skip_conv.weight", "skip_conv.weight is unknown"),
        ("patch_embed.proj.bias", "input_conv.bias is unknown"),
    ],
)
def test_variants_that_nobody_published_are_refused(tmp_path, name: str, said: str) -> None:
    official = to_official_v2(random_v2().state_dict()) | {name: torch.zeros(3)}
    torch.save({"params": official}, tmp_path / "theirs.pth")
    with pytest.raises(CheckpointError, match=said):
        load_model(tmp_path / "theirs.pth")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"embed_dim": 10}, "multiple of twice the groups"),
        ({"heads": (3, 1, 1)}, "do not split"),
        ({"depths": (1, 1)}, "three resolutions"),
        ({"depths": (1, 0, 1)}, "three resolutions"),
        ({"depths": (100, 100, 100)}, "at most"),
        ({"refinement_blocks": -1}, "must not be negative"),
        ({"mlp_ratio": float("nan")}, "above 0"),
        ({"groups": 2.0}, "whole numbers"),
        ({"proxy_px": 3}, "proxy_px"),
        ({"symmetries": "none of these"}, "symmetries"),
        ({"architecture": "ast"}, "astv2"),
    ],
)
def test_configs_that_no_network_has(changes: dict[str, object], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        dataclasses.replace(SMALL_V2, **changes)


def test_an_image_of_another_shape_is_refused() -> None:
    with pytest.raises(OptionError, match="must be \\(B, 3, H, W\\)"):
        random_v2()(torch.zeros(3, 8, 8))
    with pytest.raises(OptionError, match="no global context"):
        random_v2().look(torch.zeros(1, 3, 8, 8))


def test_restorer_takes_it_whole_and_in_tiles() -> None:
    model, image = random_v2(), np.random.default_rng(0).random((200, 300, 3), np.float32)
    for parameter in model.output_conv.parameters():
        nn.init.normal_(parameter, std=0.02)  # so that the result lies in [0, 1]
    whole = Restorer(model, device="cpu", tile=None, levels=0)(image)
    with torch.no_grad():
        expected = model(torch.from_numpy(image).permute(2, 0, 1)[None])[0].permute(1, 2, 0)
    np.testing.assert_allclose(whole, expected.clamp(0, 1), atol=1e-5)
    tiled = Restorer(model, device="cpu", tile=128, levels=0)(image)
    steps = [np.abs(np.diff(one, axis=axis)).max() for one in (whole, tiled) for axis in (0, 1)]
    assert max(steps[2:]) < 1.05 * max(steps[:2])  # no seam


def test_the_architectures_do_not_take_each_other(tmp_path) -> None:
    state = random_v2().state_dict()
    del state["reduce.0.weight"]
    torch.save(state, tmp_path / "neither.pth")
    with pytest.raises(CheckpointError, match=r"neither\.pth"):
        load_model(tmp_path / "neither.pth")


@pytest.mark.slow
def test_one_onnx_file_serves_two_runtimes_at_any_size(tmp_path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="NOT TESTED: no ONNX Runtime here")
    openvino = pytest.importorskip("openvino", reason="NOT TESTED: no OpenVINO here")
    model, path = random_v2(), tmp_path / "model.onnx"
    exported = export_onnx(model, path)
    assert max(exported.differences.values()) < 1e-4
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    compiled = openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for size in ((1, 1, 3), (2, 64, 64), (1, 121, 203)):
        image = np.random.default_rng(0).random((size[0], 3, *size[1:]), np.float32)
        with torch.no_grad():
            expected = model(torch.from_numpy(image)).clamp(0, 1).numpy()
        for result in (session.run(None, {"image": image})[0], compiled({"image": image})[0]):
            np.testing.assert_allclose(result, expected, atol=1e-4)
