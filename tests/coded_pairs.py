"""Looks inside coded files: latents and their digests. Run as a program, what a machine makes.

    python tests/coded_pairs.py MODEL FOLDER

decodes each NAME.npz, NAME.bin of FOLDER to NAME.npy, prints the digests of their latents as
JSON, and codes FOLDER/photograph.npy to FOLDER/here.npz and here.bin, with the encoder's own
reconstruction in FOLDER/here.npy. `test_environments.py` runs it under other settings.
"""

import hashlib
import json
import struct
import sys
import zlib
from pathlib import Path

import numpy as np

NAMES = ("a.npz", "a.bin", "some model")


def checked(body):
    """NAME.npz of the bytes before its checksum."""
    return body + struct.pack("<I", zlib.crc32(body))


def varint(value):
    """LEB128, as the two sides are stored."""
    groups = [value >> shift & 0x7F for shift in range(0, max(value.bit_length(), 1), 7)]
    return bytes([group | 0x80 for group in groups[:-1]] + groups[-1:])


def header(fingerprint, y_string, check, sizes, magic=b"GMM", version=1):
    """All of NAME.npz before the channel flags; sizes are the bytes of both sides."""
    return struct.pack("<3sB4sIH", magic, version, fingerprint, zlib.crc32(y_string), check) + sizes


def latents_check(z_symbols, y_hat):
    data = b"".join(np.ascontiguousarray(a, "<i4").tobytes() for a in (z_symbols, y_hat))
    return zlib.crc32(data) & 0xFFFF


def pack_latents(codec, z_symbols, y_hat, height=None, width=None, gray=False):
    """The two files' bytes of any latents; the sides are z's times 64 unless given."""
    from gmm_attention.codec import wavefront

    flags, z_string, y_string = wavefront.encode_latents(
        codec.latent_codec.entropy_model, z_symbols, y_hat
    )
    sizes = varint(height or 64 * z_symbols.shape[0]) + varint(width or 64 * z_symbols.shape[1])
    check = latents_check(z_symbols, y_hat)
    start = header(codec.fingerprint, y_string, check, sizes, version=2 if gray else 1)
    return checked(start + flags + z_string), y_string


def unpack_latents(codec, npz, y_string):
    """z's symbols and y_hat of two files."""
    from gmm_attention.codec import file_format, wavefront

    coded = file_format.unpack(npz, y_string, codec.num_filters, codec.fingerprint, NAMES)
    h, w = (-(-side // 64) for side in (coded.height, coded.width))
    return wavefront.decode_latents(
        codec.latent_codec.entropy_model, h, w, coded.flags, coded.z_string, coded.y_string
    )


def digest(z_symbols, y_hat):
    """SHA-256 of z's symbols and y_hat as little-endian int32, in this order."""
    data = b"".join(np.ascontiguousarray(a, "<i4").tobytes() for a in (z_symbols, y_hat))
    return hashlib.sha256(data).hexdigest()


def string_digests(npz, y_string):
    """Sizes in bytes and SHA-256 of the two files."""
    return {
        f"{kind} {what}": value
        for kind, data in [("npz", npz), ("bin", y_string)]
        for what, value in [("bytes", len(data)), ("sha256", hashlib.sha256(data).hexdigest())]
    }


def read_pair(stem):
    return Path(f"{stem}.npz").read_bytes(), Path(f"{stem}.bin").read_bytes()


def digest_of_integer_model(path):
    """Decodes strings with an entropy model without transforms, both from one numpy archive."""
    from gmm_attention.codec import wavefront
    from gmm_attention.entropy_coding.integer_model import IntegerEntropyModel

    with np.load(path) as file:
        arrays = dict(file)
    strings = [arrays.pop(name).tobytes() for name in ("flags", "z_string", "y_string")]
    height, width = arrays.pop("z_sides")
    return digest(*wavefront.decode_latents(IntegerEntropyModel(arrays), height, width, *strings))


def main(model, folder):
    import gmm_attention as ga

    codec, folder = ga.load(model), Path(folder)
    digests = {"integer model": digest_of_integer_model(folder / "integer_model")}
    for path in sorted(folder.glob("*.bin")):
        pair = read_pair(path.with_suffix(""))
        digests[path.stem] = digest(*unpack_latents(codec, *pair))
        np.save(path.with_suffix(".npy"), codec.decode(*pair))
    photograph = np.load(folder / "photograph.npy")
    npz, y_string, y_hat = codec.encode(photograph)
    (folder / "here.npz").write_bytes(npz)
    (folder / "here.bin").write_bytes(y_string)
    np.save(folder / "here.npy", codec.reconstruct(y_hat, *photograph.shape[:2]))
    print(json.dumps(digests))


if __name__ == "__main__":
    main(*sys.argv[1:])
