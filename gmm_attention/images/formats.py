"""Tells the format of an image file, by its content alone."""

from __future__ import annotations

import re

from gmm_attention.images.source import Refused

_NAMES = "PNG, JPEG, WebP, AVIF, BMP or TIFF file"

RAW = "a camera's raw file; develop it, and save the picture as PNG"

# Number of bytes from which a format is told.
HEAD_SIZE = 4096

_READ = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
}

# How files of other formats begin, and what they are.
_OTHERS = {
    b"GIF87a": "a GIF file",
    b"GIF89a": "a GIF file",
    b"\xff\x0a": "a JPEG XL file",
    b"\0\0\0\x0cJXL \r\n\x87\n": "a JPEG XL file",
    b"\0\0\0\x0cjP  \r\n\x87\n": "a JPEG 2000 file",
    b"\xff\x4f\xff\x51": "a JPEG 2000 file",
    b"II\xbc": "a JPEG XR file",
    b"\xff\xd8\xff\xf7": "a JPEG-LS file",
    b"8BPS": "a Photoshop file (PSD)",
    b"gimp xcf": "a GIMP file (XCF)",
    b"%PDF-": "a PDF file",
    b"%!PS": "a PostScript file",
    b"\xc5\xd0\xd3\xc6": "a PostScript file",
    b"\0\0\1\0": "an icon file (ICO)",
    b"\x76\x2f\x31\x01": "an OpenEXR file",
    b"#?RADIANCE": "a Radiance HDR file",
    b"DDS ": "a DDS file",
    b"qoif": "a QOI file",
    b"BPG\xfb": "a BPG file",
    b"FLIF": "a FLIF file",
    b"SIMPLE  =": "a FITS file",
    b"\x8aMNG\r\n\x1a\n": "an MNG file",
    b"PK\3\4": "a ZIP archive",
    b"\x1f\x8b": "a gzip archive",
    b"\x93NUMPY": "a NumPy array",
}

# Cameras' raw files that are no TIFF files.
_RAW = (
    *(b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FOVb", b"\0MRM"),
    b"II\x1a\0\0\0HEAPCCDR",
)
_RAW_BRAND = b"crx "  # Canon's CR3

# Brands that the first box of a file of boxes names.
_AVIF_BRANDS = (b"avif", b"avis")
_HEIF_BRANDS = (
    *(b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"),
    *(b"mif1", b"mif2", b"msf1", b"miaf"),
)

_portable = re.compile(rb"P[1-7FfH]\s").match
_markup = re.compile(rb"(\xef\xbb\xbf)?\s*<[?!/a-z]", re.IGNORECASE).match
_html = re.compile(rb"<(!doctype\s+html|html|head|body|script|title)\b", re.IGNORECASE).search
_svg = re.compile(rb"<svg[\s>]", re.IGNORECASE).search


def recognise(head: bytes) -> str:
    """Tells the format of a file.

    Args:
      head: its first HEAD_SIZE bytes.

    Returns:
      "PNG", "JPEG", "WebP", "AVIF", "BMP" or "TIFF".

    Raises:
      Refused: it has another format.
    """
    other = next((what for start, what in _OTHERS.items() if head.startswith(start)), "")
    if head[4:8] == b"ftyp":
        size = min(int.from_bytes(head[:4], "big"), len(head))
        brands = [head[i : i + 4] for i in range(8, size, 4)]
        if any(brand in _AVIF_BRANDS for brand in brands):
            return "AVIF"
        is_heif = any(brand in _HEIF_BRANDS for brand in brands)
        other = "a HEIC or HEIF file" if is_heif else "a video"
    if head.startswith(_RAW) or head[4:12] == b"ftyp" + _RAW_BRAND:
        raise Refused(RAW)
    if not other:
        for start, name in _READ.items():
            if head.startswith(start):
                return name
        if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
            return "WebP"
        other = _text_or_nothing(head)
    raise Refused(f"{other + ', ' if other else ''}not a {_NAMES}; convert it to PNG")


def _text_or_nothing(head: bytes) -> str:
    """Names a format of text; "" for an unknown one.

    Raises:
      Refused: the file is no picture at all.
    """
    if not head:
        raise Refused("the file is empty; copy or export it again")
    if not head.strip(b"\0"):
        raise Refused("not an image but zeros, as a failed copy leaves them; copy it again")
    if head.startswith(b"version https://git-lfs"):
        raise Refused("not an image but a pointer of Git LFS; fetch the image by git lfs pull")
    if _portable(head):
        return "a PBM, PGM, PPM, PAM or PFM file"
    if not _markup(head):
        return ""
    drawing = _svg(head)
    if drawing and not _html(head[: drawing.start()]):
        return "an SVG file"
    what = "a web page" if _html(head) else "a text of XML"
    raise Refused(f"not an image but {what}; download the image again")
