"""Restore the frames of a camera in ROS 2: topic `image` in, topic `image_restored` out.

python ros2_node.py --ros-args -r image:=/camera/image_raw -p weights:=rain -p threads:=2

Frames that arrive while one is being restored are dropped, except the latest. Parameters:
`weights`, as `fairweather.Restorer` takes them; `threads` (0: all cores); `levels`, how often a
frame is halved to be restored coarse to fine (0 takes the same time for each frame); `fast`, which
restores frames of more than a megapixel at one. The colours of the camera are expected, no depth.
"""

import array
import time
from contextlib import suppress

import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

import fairweather as fw
from fairweather.hardware import keep_freed_memory, use_threads

# Where red, green, blue and alpha lie among the channels; swapping twice gives what was.
ORDERS = {
    **{"mono": [0], "rgb": [0, 1, 2], "bgr": [2, 1, 0]},
    **{"rgba": [0, 1, 2, 3], "bgra": [2, 1, 0, 3]},
}
ENCODINGS = {
    f"{name}{bits}": (f"u{bits // 8}", ORDERS[name]) for name in ORDERS for bits in (8, 16)
}


def type_of(message):
    """Return the type of a channel, in the byte order of the message."""
    return np.dtype((">" if message.is_bigendian else "<") + ENCODINGS[message.encoding][0])


def to_pixels(message):
    """Return the pixels of an Image: (H, W), (H, W, 3) RGB or (H, W, 4) RGBA, uint8 or uint16.

    Raises:
        ValueError: for an encoding that is not in ENCODINGS, or data shorter than their size says.
    """
    if message.encoding not in ENCODINGS:
        raise ValueError(f"encoding {message.encoding!r} is none of {', '.join(ENCODINGS)}")
    kind, order = type_of(message), ENCODINGS[message.encoding][1]
    row_bytes = message.width * len(order) * kind.itemsize
    data = np.frombuffer(message.data, np.uint8)
    if not 0 < row_bytes <= message.step or not 0 < message.height * message.step <= data.size:
        said = f"{message.height}×{message.width}, step {message.step}"
        raise ValueError(f"an image of {said} does not fit {data.size} bytes of {message.encoding}")
    rows = data[: message.height * message.step].reshape(message.height, message.step)
    pixels = np.ascontiguousarray(rows[:, :row_bytes]).view(kind)
    pixels = pixels.reshape(message.height, message.width, len(order))[..., order]
    return pixels.astype(kind.newbyteorder("="))[..., 0 if len(order) == 1 else slice(None)]


def fill(message, pixels, source):
    """Put pixels into an Image, with the header and the encoding of `source`; return it."""
    for name in ("header", "height", "width", "encoding", "is_bigendian"):
        setattr(message, name, getattr(source, name))
    channels = pixels.reshape(source.height, source.width, -1)[..., ENCODINGS[source.encoding][1]]
    data = channels.astype(type_of(source)).tobytes()
    message.step = len(data) // source.height
    message.data = array.array("B", data)  # rclpy looks at each byte of anything else
    return message


class Restoring(Node):
    """Publishes what it restores; one frame at a time, the latest one there is."""

    def __init__(self):
        super().__init__("fairweather")
        defaults = {"weights": "rain", "threads": 0, "levels": 0, "fast": False}
        chosen = {name: self.declare_parameter(name, defaults[name]).value for name in defaults}
        use_threads(chosen.pop("threads") or None)
        keep_freed_memory()
        self.restorer = fw.Restorer(chosen.pop("weights"), **chosen)
        self.refused = set()
        latest = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        self.publisher = self.create_publisher(Image, "image_restored", 1)
        self.subscription = self.create_subscription(Image, "image", self.restore, latest)

    def restore(self, message):
        """Restore a frame and publish it; log each fault once, and again after a frame without."""
        start = time.monotonic()
        try:
            restored = self.restorer(to_pixels(message))
        except (ValueError, fw.FairweatherError) as error:
            if str(error) not in self.refused:
                self.get_logger().warning(f"not published: {error}")
            self.refused.add(str(error))
            return
        self.refused.clear()
        self.publisher.publish(fill(Image(), restored, message))
        taken = f"{message.width}x{message.height}: {1000 * (time.monotonic() - start):.0f} ms"
        self.get_logger().info(taken, throttle_duration_sec=10.0)


if __name__ == "__main__":
    rclpy.init()
    with suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(Restoring())
    rclpy.try_shutdown()
