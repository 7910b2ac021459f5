"""examples/ros2_node.py: its conversions, and the node between stand-ins for ROS.

ROS 2 cannot be installed from PyPI, so rclpy and sensor_msgs are replaced by the few names that the
node calls. What the middleware does (that a queue of one keeps the latest frame) is not tested.
"""

import array
import importlib
import itertools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import skimage.data
from parity import random_model

import fairweather as fw

EXAMPLES = Path(__file__).parents[1] / "examples"
CHANNELS = {"mono": 1, "rgb": 3, "bgr": 3, "rgba": 4, "bgra": 4}
ENCODINGS = [f"{name}{bits}" for name, bits in itertools.product(CHANNELS, (8, 16))]


class FakeNode:
    """rclpy.node.Node, as far as the example calls it."""

    overrides: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, name: str) -> None:
        self.name = name
        self.published: list[tuple[str, Any]] = []
        self.callbacks: dict[str, tuple[Callable[[Any], None], Any]] = {}
        self.logged: list[str] = []

    def declare_parameter(self, name: str, value: Any) -> SimpleNamespace:
        return SimpleNamespace(value=self.overrides.get(name, value))

    def create_publisher(self, kind: type, topic: str, qos: Any) -> SimpleNamespace:
        return SimpleNamespace(publish=lambda message: self.published.append((topic, message)))

    def create_subscription(self, kind: type, topic: str, callback: Any, qos: Any) -> None:
        self.callbacks[topic] = (callback, qos)

    def get_logger(self) -> SimpleNamespace:
        return SimpleNamespace(
            warning=self.logged.append, info=lambda text, throttle_duration_sec: None
        )


class FakeImage(SimpleNamespace):
    """sensor_msgs.msg.Image: its fields, and nothing else."""

    def __setattr__(self, name: str, value: Any) -> None:
        fields = "header height width encoding is_bigendian step data"
        assert name in fields.split()
        super().__setattr__(name, value)


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    names: dict[str, dict[str, Any]] = {
        "rclpy": {},
        "rclpy.executors": {"ExternalShutdownException": type("Shutdown", (Exception,), {})},
        "rclpy.node": {"Node": FakeNode},
        "rclpy.qos": {
            "QoSProfile": SimpleNamespace,
            "ReliabilityPolicy": SimpleNamespace(BEST_EFFORT="best effort"),
        },
        "sensor_msgs": {},
        "sensor_msgs.msg": {"Image": FakeImage},
    }
    for name, content in names.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr("fairweather.hardware.use_threads", lambda threads: None)
    monkeypatch.setattr("fairweather.hardware.keep_freed_memory", lambda: None)
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.delitem(sys.modules, "ros2_node", raising=False)  # made with other stand-ins
    return importlib.import_module("ros2_node")


def image(encoding: str, *, big: int = 0, gap: int = 0) -> tuple[FakeImage, np.ndarray]:
    """An Image whose rows are followed by a gap, and its pixels as RGB, RGBA or grey."""
    kind = np.dtype("u1" if encoding.endswith("8") else (">u2" if big else "<u2"))
    channels = CHANNELS[encoding.rstrip("0123456789")]
    shape = (48, 50, channels)
    pixels = np.random.default_rng(3).integers(0, np.iinfo(kind).max, shape, endpoint=True)
    ordered = pixels[..., [2, 1, 0, 3][:channels]] if encoding.startswith("bgr") else pixels
    rows = ordered.astype(kind).reshape(48, -1).view(np.uint8)
    padded = np.pad(rows, ((0, 0), (0, gap)), constant_values=7)
    message = FakeImage(
        header=SimpleNamespace(stamp=(12, 345), frame_id="camera_optical"),
        height=48, width=50, encoding=encoding, is_bigendian=big, step=padded.shape[1],
        data=array.array("B", padded.tobytes()),
    )  # fmt: skip
    return message, pixels[..., 0] if channels == 1 else pixels


@pytest.mark.parametrize(
    ("encoding", "big", "gap"), list(itertools.product(ENCODINGS, (0, 1), (0, 6)))
)
def test_pixels_survive_both_ways(encoding: str, big: int, gap: int, example: ModuleType) -> None:
    message, expected = image(encoding, big=big, gap=gap)
    found = example.to_pixels(message)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == (np.uint8 if encoding.endswith("8") else np.uint16)
    assert found.dtype.isnative
    made = example.fill(FakeImage(), found, message)
    assert made.header is message.header
    assert (made.height, made.width, made.encoding) == (48, 50, encoding)
    assert made.is_bigendian == big
    assert made.step == message.step - gap
    assert isinstance(made.data, array.array)
    assert len(made.data) == made.step * made.height
    np.testing.assert_array_equal(example.to_pixels(made), expected)


def start(example: ModuleType, monkeypatch: pytest.MonkeyPatch, **parameters: Any) -> Any:
    monkeypatch.setattr(FakeNode, "overrides", parameters)
    return example.Restoring()


@pytest.mark.parametrize("encoding", ["bgr8", "mono8", "rgba8", "rgb16"])
def test_the_node_publishes_what_a_restorer_gives(
    encoding: str, example: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = random_model(depths=(1, 1, 1), heads=(1, 1, 1))
    node = start(example, monkeypatch, weights=model)
    callback, qos = node.callbacks["image"]
    assert qos.depth == 1
    assert qos.reliability == "best effort"
    message, _ = image(encoding, gap=2)
    pixels = example.to_pixels(message)
    callback(message)
    ((topic, published),) = node.published
    assert topic == "image_restored"
    assert published.header.frame_id == "camera_optical"
    assert published.header.stamp == (12, 345)
    expected = fw.Restorer(model, levels=0)(pixels)
    np.testing.assert_array_equal(example.to_pixels(published), expected)
    assert np.abs(expected.astype(float) - pixels).mean() > 1


def test_what_cannot_be_restored_is_logged_once(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = start(example, monkeypatch, weights=random_model(depths=(1, 1, 1), heads=(1, 1, 1)))
    depth, _ = image("mono16")
    depth.encoding = "16UC1"
    cut, _ = image("rgb8")
    cut.data = cut.data[:-1]
    narrow, _ = image("bgr8")
    narrow.step = 10
    empty, _ = image("mono8")
    empty.height = 0
    frames = (depth, cut, narrow, empty, depth, cut, narrow, empty)
    for message in frames:
        node.callbacks["image"][0](message)
    assert node.published == []
    unknown, *misfits = node.logged
    assert "encoding '16UC1' is none of mono8, mono16, rgb8" in unknown
    assert len(misfits) == 3
    assert "48×50, step 150 does not fit 7199 bytes of rgb8" in misfits[0]
    for message in (image("rgb8")[0], *frames):
        node.callbacks["image"][0](message)
    assert node.logged == 2 * [unknown, *misfits]


def test_parameters_reach_the_restorer(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[int | None] = []
    monkeypatch.setattr(example, "use_threads", used.append)
    node = start(example, monkeypatch, weights="snow", threads=3, fast=True, levels=1)
    assert used == [3]
    assert node.restorer.weights == "snow"
    assert (node.restorer.fast, node.restorer.levels) == (True, 1)
    start(example, monkeypatch)
    assert used == [3, None]


def test_a_photograph_in_rain_comes_back_clearer(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fairweather.data import degrade_pixels

    clean = skimage.data.astronaut()[40:200, 150:310]
    message, _ = image("bgr8")
    message.height = message.width = 160
    rainy = example.fill(FakeImage(), degrade_pixels(clean, task="rain", seed=2), message)
    node = start(example, monkeypatch)
    node.callbacks["image"][0](rainy)
    restored = example.to_pixels(node.published[0][1]).astype(float)
    before = example.to_pixels(rainy).astype(float)
    assert np.square(restored - clean).mean() < 0.5 * np.square(before - clean).mean()
