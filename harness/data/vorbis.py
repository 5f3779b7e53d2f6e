"""Ogg Vorbis by FFmpeg, in half the time that libvorbis takes."""

import base64
import contextlib
from typing import cast

import numpy as np
from jaxtyping import Float32

_SAMPLES_AT_A_TIME = "16384"

MOST_CHANNELS = 2
"""From three on FFmpeg has the channels in an order of its own, and PyAV 18 reads past the last one of eight."""


def decode_vorbis(content: bytes) -> Float32[np.ndarray, "sample channel"]:
    """Return the samples of an Ogg Vorbis file of `MOST_CHANNELS` or fewer, within 1e-6 of libvorbis's.

    There are fewer where the file is damaged, and none if it wholly is.

    One call into FFmpeg decodes 16,384 samples, and not a packet's 1,024: Python takes half as long again to ask for
    each packet, and threads would wait for one another's Python.
    """
    import av  # noqa: PLC0415  20 MB, which only who prepares clips needs

    parts: list[np.ndarray] = []
    with contextlib.suppress(av.error.FFmpegError):  # the end, of all or of what can be decoded
        graph = av.filter.Graph()
        graph.threads = 1
        # as an address, the file needs neither be read again nor have a name without FFmpeg's special characters
        address = f"data:audio/ogg;base64,{base64.b64encode(content).decode()}"
        source = graph.add("amovie", filename=address, format_name="ogg", stream_index="0")
        gathered, sink = graph.add("asetnsamples", n=_SAMPLES_AT_A_TIME, p="0"), graph.add("abuffersink")
        graph.link_nodes(source, gathered, sink)
        while True:
            parts.append(cast(av.AudioFrame, sink.pull()).to_ndarray())  # (channel, sample)
    return np.concatenate(parts, axis=1).T if parts else np.zeros((0, 0), np.float32)
