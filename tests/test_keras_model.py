"""The Keras model beside the PyTorch one; `test_keras_backends.py` runs this on every backend."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import parity
import pytest
import torch
from parity import known_ast_t, load, relative_error

import fairweather
from fairweather import models
from fairweather.models import ASTConfig

# Keras 3.15 has not caught up with NumPy 2 where it saves its variables.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy")

SMALL = ASTConfig(embed_dim=8, depths=(1, 2, 2), heads=(1, 2, 4), window=4, mlp_ratio=1.5)
VARIANTS: tuple[dict[str, Any], ...] = (
    {"feed_forward": "leff", "branches": "dense", "encoder_attention": True},
    {"feed_forward": "mlp", "branches": "sparse", "bottleneck_shift": True},
    {"global_context": True, "fold": 2},
)
random_model = functools.partial(parity.random_model, SMALL, std=0.2)


def backend() -> str:
    import keras

    return keras.backend.backend()


def images(*size: int, seed: int = 0) -> np.ndarray:
    """Two for a batch: (2, H, W, 3) float32 in [0, 1]."""
    return np.random.default_rng(seed).random((2, *size, 3), dtype=np.float32)


def forward(model: Any, image: np.ndarray) -> np.ndarray:
    """The output of a Keras model, compiled where single operations would each be compiled."""
    import keras

    if backend() == "jax":
        import jax

        state = [
            [v.value for v in side]
            for side in (model.trainable_variables, model.non_trainable_variables)
        ]
        return np.array(jax.jit(lambda s, x: model.stateless_call(*s, x)[0])(state, image))
    return keras.ops.convert_to_numpy(model(image)).copy()


def torch_forward(model: models.Network, image: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        output = model(torch.from_numpy(image).permute(0, 3, 1, 2))
    return output.permute(0, 2, 3, 1).numpy()


def charbonnier(restored: Any, clean: Any) -> Any:
    return (((restored - clean) ** 2 + 1e-6) ** 0.5).mean()


def keras_gradients(model: Any, image: np.ndarray, clean: np.ndarray) -> tuple[Any, list[Any]]:
    """Output, and gradients of the loss for the trainable variables in their order."""
    variables = [variable.value for variable in model.trainable_variables]
    if backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            restored = model(image)
            loss = tf.reduce_mean(tf.sqrt((restored - clean) ** 2 + 1e-6))
        gradients = tape.gradient(loss, variables)
        assert all(isinstance(gradient, tf.Tensor) for gradient in gradients)  # none is sparse
        return restored.numpy(), gradients
    if backend() == "jax":
        import jax

        fixed = [variable.value for variable in model.non_trainable_variables]

        def loss_of(values: Any) -> Any:
            restored = model.stateless_call(values, fixed, image)[0]
            return charbonnier(restored, clean), restored

        gradients, restored = jax.jit(jax.grad(loss_of, has_aux=True))(variables)
        return np.array(restored), gradients
    restored = model(image)
    charbonnier(restored, torch.from_numpy(clean)).backward()
    return restored.detach().numpy(), [variable.grad for variable in variables]


def in_torch_layout(fk: Any, model: Any, values: list[Any]) -> dict[str, torch.Tensor]:
    """Values for the trainable variables under the names and in the layout of PyTorch."""
    from fairweather.keras.convert import state_of

    holder = type(model)(model.config)
    for variable, value in zip(holder.trainable_variables, values, strict=True):
        variable.assign(value)
    return state_of(holder)


def torch_gradients(
    model: models.Network, image: np.ndarray, clean: np.ndarray
) -> dict[str, torch.Tensor]:
    model.zero_grad()
    restored = model(torch.from_numpy(image).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    charbonnier(restored, torch.from_numpy(clean)).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return gradients


def check_parity_weights_give_the_official_output(fk: Any) -> None:
    names = {"ast_t_128": False, "ast_t_256": True}
    if backend() != "tensorflow":  # slow to compile on JAX, and PyTorch has its own tests
        del names["ast_t_256"]
    for name, shift in names.items():
        model = fk.from_torch(known_ast_t(bottleneck_shift=shift))
        image = load("models")[f"{name}.input"] / np.float32(255)
        output = forward(model, image[None])[0].transpose(2, 0, 1)
        error = relative_error(output, load("models")[f"{name}.output"])
        print(f"{backend()} {name}: relative error {error:.1e}")
        assert error < 3e-5


def check_bundled_weights_give_what_pytorch_gives(fk: Any) -> None:
    """At a size of which both sides are padded, to several windows down and fewer across."""
    size = (70, 53)
    theirs, image = fairweather.load_model("rain"), images(*size)
    assert theirs.output_conv.weight.abs().sum() > 0
    model = fk.load_model("rain")
    restored = compare_gradients(fk, model, theirs, image)
    error = np.abs(restored - torch_forward(theirs, image)).max()
    print(f"{backend()} rain (ast_n) {size}: max |difference| {error:.1e}")
    assert error < 1e-4


def compare_gradients(fk: Any, model: Any, theirs: models.Network, image: np.ndarray) -> np.ndarray:
    """Asserts the same gradients of the loss for every weight; returns the Keras output."""
    clean = images(*image.shape[1:3], seed=1)[: len(image)]
    restored, values = keras_gradients(model, image, clean)
    ours, wanted = in_torch_layout(fk, model, values), torch_gradients(theirs, image, clean)
    assert ours.keys() == wanted.keys()
    errors = {name: relative_error(ours[name], wanted[name]) for name in wanted}
    worst = max(errors, key=errors.__getitem__)
    print(f"{backend()} worst gradient: {worst}, relative error {errors[worst]:.1e}")
    assert errors[worst] < 1e-3, worst
    return restored


@pytest.mark.parametrize("changes", VARIANTS)
def check_every_variant_is_that_of_pytorch(fk: Any, changes: dict[str, Any]) -> None:
    theirs, image = random_model(**changes), images(20, 30)
    restored = compare_gradients(fk, fk.from_torch(theirs), theirs, image)
    error = relative_error(restored, torch_forward(theirs, image))
    print(f"{backend()} {changes}: relative error {error:.1e}")
    assert error < 3e-5


def check_ast_v2_is_that_of_pytorch(fk: Any, tmp_path: Path) -> None:
    theirs, image = parity.random_v2(), images(20, 30)
    model = fk.from_torch(theirs)
    restored, expected = compare_gradients(fk, model, theirs, image), torch_forward(theirs, image)
    error = np.abs(restored - expected).max() / np.abs(expected).max()
    print(f"{backend()} AST-v2: max |difference| / largest value {error:.1e}")
    assert error < 5e-6
    fk.save_model(model, tmp_path / "v2.keras")
    loaded = fk.load_model(tmp_path / "v2.keras")
    assert isinstance(loaded, fk.ASTv2)
    assert loaded.config == theirs.config
    np.testing.assert_allclose(forward(loaded, image), restored, atol=1e-6)
    back = fk.to_torch(loaded).state_dict()
    assert all(torch.equal(back[name], one) for name, one in theirs.state_dict().items())


def check_padding_is_that_of_pytorch(fk: Any) -> None:
    import keras

    from fairweather.keras.layers import PadToMultiple

    for size in ((1, 1), (2, 13), (9, 22), (16, 33)):
        image = images(*size)
        padded = keras.ops.convert_to_numpy(PadToMultiple(16)(image))
        theirs = models.pad_to_multiple(torch.from_numpy(image).permute(0, 3, 1, 2), 16)
        np.testing.assert_array_equal(padded, theirs.permute(0, 2, 3, 1))
        assert PadToMultiple(16).compute_output_shape(image.shape) == padded.shape


def check_any_size_in_one_graph(fk: Any) -> None:
    theirs = random_model(bottleneck_shift=True)
    model: Any = fk.from_torch(theirs)
    apply: Callable[[np.ndarray], Any] = model
    sizes = [(1, 1), (1, 70), (37, 53), (8, 16)]
    if backend() == "tensorflow":
        import tensorflow as tf

        apply = tf.function(model, input_signature=[tf.TensorSpec((None, None, None, 3))])
    if backend() == "jax":
        del sizes[1:3]
    for size in sizes:
        output = forward(apply, images(*size)) if apply is model else apply(images(*size)).numpy()
        assert output.shape == (2, *size, 3)
        np.testing.assert_allclose(output, torch_forward(theirs, images(*size)), atol=1e-4)


def check_shapes_are_known_without_sizes(fk: Any) -> None:
    model = fk.create_model("ast_n")
    assert model.compute_output_shape((None, None, None, 3)) == (None, None, None, 3)
    assert model.compute_output_shape((2, 37, 53, 3)) == (2, 37, 53, 3)
    assert model.input_shape == model.output_shape == (None, None, None, 3)
    with pytest.raises(ValueError, match="incompatible"):
        model(np.zeros((1, 3, 8, 8), "float32"))


def check_presets_have_the_published_size(fk: Any) -> None:
    assert fk.create_model("ast_t").count_params() == 6_645_347
    with pytest.raises(ValueError, match="ast_x"):
        fk.create_model("ast_x")
    with pytest.raises(ValueError, match="xavier"):
        fk.create_model("ast_n", init="xavier")


def check_untrained_model_returns_its_input(fk: Any) -> None:
    image = images(8, 9)
    model = fk.create_model(SMALL)
    np.testing.assert_array_equal(forward(model, image), image)
    assert not np.array_equal(forward(fk.create_model(SMALL, init="official"), image), image)


def check_initialisation_is_that_of_pytorch(fk: Any) -> None:
    import keras

    keras.utils.set_random_seed(3)
    ours = fk.to_torch(fk.create_model("ast_n", init="official")).state_dict()
    keras.utils.set_random_seed(3)
    again = fk.to_torch(fk.create_model("ast_n", init="official")).state_dict()
    theirs = models.create_model("ast_n", init="official").state_dict()
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], again[name]), name
        if tensor.numel() < 200:
            continue
        assert ours[name].std().item() == pytest.approx(tensor.std().item(), rel=0.15), name
        assert ours[name].abs().max().item() == pytest.approx(tensor.abs().max().item(), rel=0.4)


def check_stochastic_depth_keeps_the_mean_and_drops_whole_samples(fk: Any) -> None:
    import keras

    from fairweather.keras.layers import StochasticDepth

    layer = StochasticDepth(0.25, seed=1)
    ones = np.ones((4000, 2, 3), "float32")
    out = keras.ops.convert_to_numpy(layer(ones, training=True))
    np.testing.assert_allclose(np.unique(out), [0, 4 / 3], rtol=1e-6)
    assert out.mean() == pytest.approx(1, abs=0.05)
    assert (out.std((1, 2)) == 0).all()
    second = keras.ops.convert_to_numpy(layer(ones, training=True))
    assert not np.array_equal(out, second)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(layer(ones)), ones)


def check_saved_models_give_identical_outputs(fk: Any, tmp_path: Path) -> None:
    import keras

    model = fk.from_torch(random_model(stochastic_depth=0.05), name="mine")
    assert model.from_config(json.loads(json.dumps(model.get_config()))).config == model.config
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert (type(loaded), loaded.config, loaded.name) == (fk.AST, model.config, "mine")
    image = images(20, 30)
    np.testing.assert_array_equal(forward(loaded, image), forward(model, image))
    encoder = keras.Model(model.input, model.get_layer("bottleneck_1").output)
    encoder.save(tmp_path / "encoder.keras")
    features = keras.saving.load_model(tmp_path / "encoder.keras")
    image = images(16, 16)
    np.testing.assert_array_equal(forward(features, image), forward(encoder, image))


def check_mixed_precision_keeps_image_and_softmax_in_float32(
    fk: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import keras

    from fairweather.keras.attention import WindowAttention

    seen = set()
    fuse = WindowAttention.fuse_branches

    def spy(self: Any, logits: Any) -> Any:
        seen.add(keras.backend.standardize_dtype(logits.dtype))
        return fuse(self, logits)

    monkeypatch.setattr(WindowAttention, "fuse_branches", spy)
    image = images(8, 9)
    model = fk.create_model(SMALL, dtype="mixed_bfloat16")
    output = forward(model, image)
    assert (output.dtype, seen) == (np.float32, {"float32"})
    np.testing.assert_array_equal(output, image)  # bfloat16 would have rounded it
    assert model.get_layer("bottleneck_0").compute_dtype == "bfloat16"
    assert {variable.dtype for variable in model.trainable_variables} == {"float32"}
    model.save(tmp_path / "mixed.keras")
    loaded = keras.saving.load_model(tmp_path / "mixed.keras")
    assert loaded.dtype_policy.name == "mixed_bfloat16"
    theirs = random_model()
    rounded = forward(fk.from_torch(theirs, dtype="mixed_bfloat16"), image)
    exact = torch_forward(theirs, image)
    assert 1e-5 < relative_error(rounded - image, exact - image) < 0.05


def check_fit_trains_every_weight(fk: Any) -> None:
    import keras

    keras.utils.set_random_seed(0)
    model = fk.from_torch(random_model(depths=(1, 1, 1), stochastic_depth=0.2))
    before = [keras.ops.convert_to_numpy(v).copy() for v in model.trainable_variables]
    optimizer = keras.optimizers.AdamW(1e-3, clipnorm=1.0)
    model.compile(optimizer=optimizer, loss="mae", jit_compile=backend() == "jax")
    losses = model.fit(images(16, 16), images(16, 16), epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    for variable, old in zip(model.trainable_variables, before, strict=True):
        assert not np.array_equal(keras.ops.convert_to_numpy(variable), old), variable.path
