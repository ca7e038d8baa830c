"""Sound files as samples. The library that reads them is imported when the first one comes."""

import io
from math import gcd

import numpy as np
from numpy.typing import NDArray

from .errors import BodyDecodeError

# A hundred minutes at 16 kHz take 400 MB as floats; a few kilobytes of FLAC can claim far more.
MAX_SAMPLES = 100_000_000
# Zero crossings of the sinc on each side; more make the filter steeper, and slower.
CROSSINGS = 16
# Where the filter begins to fall, as a share of the highest frequency that the lower rate can carry.
ROLL_OFF = 0.95

Samples = NDArray[np.float32]


def decode_audio(body: bytes, content_type: str, sampling_rate: int) -> Samples:
    """Return the samples of a sound file (WAV, FLAC, Ogg, MP3), channels mixed to one, at a sampling rate.

    Raises `BodyDecodeError` for what is no sound, is cut short, is empty, or is longer than it is worth.
    """
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(body)) as file:
            rate = file.samplerate
            longest = max(file.frames * file.channels, file.frames * sampling_rate // max(rate, 1))
            if longest > MAX_SAMPLES:
                problem = f"the sound has {longest:,} samples, over the limit of {MAX_SAMPLES:,}"
                raise BodyDecodeError(content_type, problem)
            samples = file.read(dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError, ValueError, OSError) as error:
        raise BodyDecodeError(content_type, "it is no sound in a format that is known here, or is damaged") from error
    if not samples.size:
        raise BodyDecodeError(content_type, "the sound is empty")
    return resample(samples.mean(axis=1), rate, sampling_rate)


def resample(samples: Samples, rate: int, target: int) -> Samples:
    """Return samples at another rate, what the lower rate cannot carry filtered out.

    A sinc under a Hann window, computed once for each position that an output sample can have between two inputs.
    """
    if rate == target:
        return samples
    up, down = target // gcd(rate, target), rate // gcd(rate, target)
    count = -(-len(samples) * up // down)
    cutoff = min(1.0, up / down) * ROLL_OFF
    reach = int(np.ceil(CROSSINGS / cutoff))
    padded = np.pad(samples, (reach, reach + 1))
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    result = np.empty(count, dtype=np.float32)
    for phase in range(min(up, count)):
        first, numerator = divmod(phase * down, up)
        distances = np.arange(-reach, reach + 1) - numerator / up
        window = np.cos(np.clip(distances / reach, -1, 1) * np.pi / 2) ** 2
        kernel = (cutoff * np.sinc(cutoff * distances) * window).astype(np.float32)
        places = result[phase::up]
        places[:] = windows[first::down][: len(places)] @ kernel
    return result
