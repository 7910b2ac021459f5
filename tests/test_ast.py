"""AST against the official code's numbers, a naive attention, and its own promises."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parity import (
    known_ast_t,
    known_state,
    load,
    official_parameters,
    official_state_dicts,
    relative_error,
)
from torch import Tensor

from fairweather.models import (
    AST,
    PRESETS,
    ASTConfig,
    count_parameters,
    create_model,
    from_official,
    list_models,
    pad_to_multiple,
    stochastic_depth_schedule,
    to_official,
)
from fairweather.models.ast import (
    Block,
    FeatureRefinement,
    StochasticDepth,
    WindowAttention,
)

VARIANTS = {
    f"{preset}_{kind}": preset for preset in ("ast_t", "ast_b") for kind in ("frfn", "leff")
}


def config_of(variant: str) -> ASTConfig:
    preset, feed_forward = PRESETS[VARIANTS[variant]], variant.rpartition("_")[2]
    return dataclasses.replace(preset, feed_forward=feed_forward)


def block_state(prefix: str, *, part: str) -> dict[str, Tensor]:
    """The fixture's parameters of one module, under our names."""
    archive = load("blocks")
    start = f"{prefix}.param."
    official = {
        f"conv.blocks.0.{part}{key.removeprefix(start)}": torch.from_numpy(value).double()
        for key, value in archive.items()
        if key.startswith(start)
    }
    names = from_official(official)
    ours = {"attn.": "attention.", "mlp.": "feed_forward.", "": ""}[part]
    return {name.removeprefix(f"bottleneck.0.{ours}"): value for name, value in names.items()}


@pytest.mark.parametrize(("name", "shift"), [("ast_t_128", False), ("ast_t_256", True)])
def test_whole_model_is_the_official_one(name: str, shift: bool) -> None:
    archive = load("models")
    image = torch.from_numpy(archive[f"{name}.input"]).permute(2, 0, 1)[None]
    model = known_ast_t(bottleneck_shift=shift)
    with torch.no_grad():
        assert relative_error(model(image.float() / 255)[0], archive[f"{name}.output"]) < 3e-5
    model64 = AST(model.config).double().eval()
    model64.load_state_dict(model.state_dict())
    with torch.no_grad():
        output = model64(image.double() / 255)[0]
    assert relative_error(output, archive[f"{name}.output64"]) < 1e-9


def test_bottleneck_shift_changes_the_output() -> None:
    image = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        outputs = [known_ast_t(bottleneck_shift=shift)(image) for shift in (False, True)]
    assert relative_error(outputs[0], outputs[1]) > 1e-3


@pytest.mark.parametrize("variant", VARIANTS)
def test_state_dicts_match_name_by_name_and_shape_by_shape(variant: str) -> None:
    with torch.device("meta"):
        model = AST(config_of(variant))
    ours = {name: list(value.shape) for name, value in to_official_meta(model).items()}
    assert ours == {name: list(shape) for name, shape in official_state_dicts()[variant].items()}
    assert count_parameters(model) == official_parameters(variant)


def to_official_meta(model: AST) -> dict[str, Tensor]:
    with torch.device("cpu"):
        return to_official(model.state_dict())


def test_published_parameter_counts() -> None:
    counts = {"ast_t": 6_645_347, "ast_b": 65_362_455}
    for preset, count in counts.items():
        with torch.device("meta"):
            assert count_parameters(AST(PRESETS[preset])) == count


def test_attention_and_its_gradients_are_the_official_ones() -> None:
    archive = load("blocks")
    attention = WindowAttention(64, 4, window=8, shifts=False, branches="both").double()
    attention.load_state_dict(block_state("assa", part="attn."))
    tokens = torch.from_numpy(archive["assa.input"]).double()
    windows = tokens.view(6, 8, 8, 64).requires_grad_()
    output = attention(windows)
    assert relative_error(output.detach().view(6, 64, 64), archive["assa.output"]) < 1e-6
    output.backward(torch.from_numpy(archive["assa.grad_output"]).double().view(6, 8, 8, 64))
    assert windows.grad is not None
    assert relative_error(windows.grad.view(6, 64, 64), archive["assa.grad_input"]) < 1e-4
    check_gradients(attention, "assa", part="attn.")


def test_frfn_and_its_gradients_are_the_official_ones() -> None:
    archive = load("blocks")
    network = FeatureRefinement(32, 128).double()
    network.load_state_dict(block_state("frfn", part="mlp."))
    image = torch.from_numpy(archive["frfn.input"]).double().view(2, 16, 16, 32).requires_grad_()
    output = network(image)
    assert relative_error(output.detach().view(2, 256, 32), archive["frfn.output"]) < 1e-6
    output.backward(torch.from_numpy(archive["frfn.grad_output"]).double().view(2, 16, 16, 32))
    assert image.grad is not None
    assert relative_error(image.grad.view(2, 256, 32), archive["frfn.grad_input"]) < 1e-4
    check_gradients(network, "frfn", part="mlp.")


def check_gradients(module: torch.nn.Module, prefix: str, *, part: str) -> None:
    """Every parameter's gradient against the fixture's."""
    archive, start = load("blocks"), f"{prefix}.grad."
    official = {
        f"conv.blocks.0.{part}{key.removeprefix(start)}": torch.from_numpy(value)
        for key, value in archive.items()
        if key.startswith(start)
    }
    ours = {"attn.": "attention.", "mlp.": "feed_forward."}[part]
    expected = {
        name.removeprefix(f"bottleneck.0.{ours}"): value
        for name, value in from_official(official).items()
    }
    assert expected.keys() == dict(module.named_parameters()).keys()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None
        assert relative_error(parameter.grad, expected[name]) < 1e-4, name


def test_leff_is_the_official_one() -> None:
    archive = load("blocks")
    config = ASTConfig(embed_dim=32, mlp_ratio=4, feed_forward="leff")
    network = Block(config, 0, shifts=False, drop_probability=0.0).feed_forward.double()
    network.load_state_dict(block_state("leff", part="mlp."))
    with torch.no_grad():
        output = network(torch.from_numpy(archive["leff.input"]).double().view(2, 16, 16, 32))
    assert relative_error(output.view(2, 256, 32), archive["leff.output"]) < 1e-6


def test_shifted_block_is_the_official_one() -> None:
    archive = load("blocks")
    config = ASTConfig(embed_dim=16, depths=(2,) * 9)
    block = Block(config, len(config.depths) - 1, shifts=True, drop_probability=0.1)
    block.double().eval().load_state_dict(block_state("block", part=""))
    with torch.no_grad():
        output = block(torch.from_numpy(archive["block.input"]).double().view(1, 32, 32, 32))
    assert relative_error(output.view(1, 1024, 32), archive["block.output"]) < 1e-6


def naive_attention(attention: WindowAttention, x: np.ndarray) -> np.ndarray:
    """Shifted-window adaptive attention of (H, W, C), token by token, in plain loops."""
    height, width, channels = x.shape
    window, shift, heads = attention.window, attention.shift, attention.heads
    size = channels // heads
    weight, bias, out_weight, out_bias, table = (
        p.detach().double().numpy()
        for p in (
            attention.qkv.weight,
            attention.qkv.bias,
            attention.output.weight,
            attention.output.bias,
            attention.bias_table,
        )
    )
    dense_share = 1.0
    if attention.branches == "both":
        dense_share = float(attention.branch_logits.detach().double().softmax(0)[0])
    qkv = x @ weight.T + bias
    result = np.zeros_like(x)
    for row in range(height):
        for column in range(width):
            # where the token lies after the cyclic shift, and all tokens of its window
            r, c = (row - shift) % height, (column - shift) % width
            top, left = r // window * window, c // window * window
            keys = [(top + i, left + j) for i in range(window) for j in range(window)]
            here = np.array([(kr + shift) % height for kr, _ in keys])
            there = np.array([(kc + shift) % width for _, kc in keys])
            for head in range(heads):
                part = slice(head * size, (head + 1) * size)
                q = qkv[row, column, :channels][part] / math.sqrt(size)
                k = qkv[here, there, channels : 2 * channels][:, part]
                v = qkv[here, there, 2 * channels :][:, part]
                logits = k @ q
                for n, (kr, kc) in enumerate(keys):
                    offset = (r - kr + window - 1) * (2 * window - 1) + c - kc + window - 1
                    logits[n] += table[offset, head]
                    wraps = (r >= height - shift) != (kr >= height - shift) or (
                        (c >= width - shift) != (kc >= width - shift)
                    )
                    logits[n] -= 100 if shift and wraps else 0
                dense = np.exp(logits - logits.max())
                dense /= dense.sum()
                sparse = np.maximum(logits, 0) ** 2
                mixed = {
                    "dense": dense,
                    "sparse": sparse,
                    "both": dense_share * dense + (1 - dense_share) * sparse,
                }[attention.branches]
                result[row, column, part] = mixed @ v
    return result @ out_weight.T + out_bias


@pytest.mark.parametrize("branches", ["both", "dense", "sparse"])
@pytest.mark.parametrize("shifts", [False, True])
@pytest.mark.parametrize(("window", "rows", "columns"), [(4, 1, 1), (4, 3, 2), (2, 2, 5)])
def test_attention_equals_naive_loops(
    branches: str, shifts: bool, window: int, rows: int, columns: int
) -> None:
    torch.manual_seed(0)
    attention = WindowAttention(8, 2, window=window, shifts=shifts, branches=branches).double()  # type: ignore[arg-type]
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x = torch.randn(1, rows * window, columns * window, 8, dtype=torch.float64)
    with torch.no_grad():
        output = attention(x)[0].numpy()
    np.testing.assert_allclose(output, naive_attention(attention, x[0].numpy()), atol=1e-10)


def test_position_bias_follows_the_weights() -> None:
    torch.manual_seed(0)
    attention = WindowAttention(8, 2, window=4, shifts=False, branches="both")
    x = torch.randn(1, 4, 4, 8)
    with torch.no_grad():
        before = attention(x)
        assert attention.position_bias() is attention.position_bias()
        attention.bias_table += 1 + torch.randn_like(attention.bias_table)
        after = attention(x)
        attention.load_state_dict({k: v * 1.5 for k, v in attention.state_dict().items()})
        loaded = attention(x)
        attention.bias_table.data.mul_(-1)  # as averages of weights are often written
        written = attention(x)
        attention.bias_table.data.mul_(-1)
        attention.double()
        doubled = attention(x.double())
    assert not torch.allclose(before, after)
    assert not torch.allclose(after, loaded)
    assert not torch.allclose(loaded, written)
    torch.testing.assert_close(doubled.float(), loaded, atol=1e-4, rtol=1e-4)


def small_model(**changes: object) -> AST:
    """A small AST of random weights whose output layer is not zero."""
    torch.manual_seed(1)
    base = ASTConfig(
        embed_dim=8, depths=(1, 2, 2, 2, 1), heads=(1, 2, 4, 2, 2), window=4, mlp_ratio=2
    )
    model = AST(dataclasses.replace(base, **changes))  # type: ignore[arg-type]
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=1 / math.sqrt(parameter[0].numel()))
    return model.eval()


@given(height=st.integers(1, 70), width=st.integers(1, 70), batch=st.integers(1, 3))
@settings(max_examples=40)
def test_any_size_gives_that_size_and_batches_are_independent(
    height: int, width: int, batch: int
) -> None:
    model = small_model().double()
    generator = torch.Generator().manual_seed(height)
    images = torch.rand(batch, 3, height, width, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        together = model(images)
        alone = torch.cat([model(image[None]) for image in images])
    assert together.shape == images.shape
    torch.testing.assert_close(together, alone, atol=1e-10, rtol=1e-8)
    assert (together - images).abs().max() > 1e-4  # it does something


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (130, 3), (127, 129), (200, 200)])
def test_official_preset_takes_sizes_that_the_official_code_does_not(size: tuple[int, int]) -> None:
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        assert known_ast_t()(image).shape == image.shape


def test_padding_is_reflection_and_the_output_is_cropped() -> None:
    model = small_model()
    image = torch.rand(1, 3, 29, 22)
    multiple = model.config.size_multiple
    padded = torch.from_numpy(np.pad(image, ((0, 0), (0, 0), (0, 3), (0, 10)), mode="reflect"))
    assert multiple == 16
    assert torch.equal(pad_to_multiple(image, multiple), padded)
    with torch.no_grad():
        torch.testing.assert_close(model(image), model(padded)[..., :29, :22])


def test_padding_replicates_where_the_image_is_shorter_than_it() -> None:
    image = torch.rand(1, 3, 2, 13)
    padded = pad_to_multiple(image, 16)
    assert torch.equal(padded[..., 2:, :13], image[..., 1:, :].expand(1, 3, 14, 13))
    assert torch.equal(padded[..., 0, 13:], image[..., 0, 9:12].flip(-1))


@pytest.mark.parametrize(
    "changes",
    [
        *({"branches": one} for one in ("dense", "sparse")),
        {"encoder_attention": True},
        {"feed_forward": "leff"},
        {"feed_forward": "mlp"},
        {"bottleneck_shift": True},
        {"global_context": True},
        {"window": 8},
        {"fold": 2},
    ],
)
def test_every_option_changes_what_is_computed(changes: dict[str, object]) -> None:
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        assert not torch.allclose(small_model()(image), small_model(**changes)(image), atol=1e-4)


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 4, 8, 8), (1, 3, 0, 8), (1, 1, 8, 8)])
def test_other_shapes_are_refused_by_name(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="the image is"):
        small_model()(torch.zeros(shape))


def test_untrained_model_returns_its_input() -> None:
    image = torch.rand(1, 3, 40, 50)
    with torch.no_grad():
        assert torch.equal(create_model("ast_n").eval()(image), image)
        official = create_model("ast_n", init="official").eval()
        assert not torch.equal(official(image), image)


@pytest.mark.parametrize(("name", "gmacs"), [("ast_n", 13.44 / 4), ("ast_f", 0.9)])
def test_a_preset_is_within_its_budget(name: str, gmacs: float) -> None:
    (entry,) = (entry for entry in list_models() if entry.name == name)
    assert entry.gmacs <= gmacs
    assert entry.parameters <= 2_000_000


def test_stochastic_depth_rises_and_falls_as_officially() -> None:
    schedule = stochastic_depth_schedule(PRESETS["ast_t"])
    expected = np.linspace(0, 0.1, 8)
    np.testing.assert_allclose(schedule, [*expected, 0.1, 0.1, *expected[::-1]])


def test_stochastic_depth_keeps_the_mean_and_drops_whole_samples() -> None:
    torch.manual_seed(0)
    layer = StochasticDepth(0.25)
    out = layer(torch.ones(4000, 2, 3))
    assert out.unique().tolist() == pytest.approx([0, 4 / 3])
    assert out.mean().item() == pytest.approx(1, abs=0.05)
    assert bool((out.flatten(1).std(1) == 0).all())
    assert torch.equal(layer.eval()(torch.ones(2, 2)), torch.ones(2, 2))


def test_gradients_reach_every_parameter() -> None:
    model = small_model().train()
    model(torch.rand(2, 3, 40, 40)).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"depths": (1, 1)}, "depths"),
        ({"heads": (1, 1, 1)}, "heads"),
        ({"heads": (1, 2, 3, 2, 2)}, "stage 2"),
        ({"window": 1}, "window"),
        ({"feed_forward": "frn"}, "feed_forward"),
        ({"branches": "none"}, "branches"),
        ({"stochastic_depth": 1.0}, "stochastic_depth"),
        ({"embed_dim": 2}, "stage 0"),
    ],
)
def test_impossible_configs_are_refused_by_name(changes: dict[str, object], part: str) -> None:
    with pytest.raises(ValueError, match=part):
        small_model(**changes)


def test_known_weights_are_not_degenerate() -> None:
    assert all(value.abs().sum() > 0 for value in known_state("ast_t_frfn").values())
