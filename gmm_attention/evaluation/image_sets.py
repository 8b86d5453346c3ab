"""How many photographs known image sets hold, over which published figures are means."""

from __future__ import annotations

import re

# Numbers of images by the names of the sets' parts. "CLIC2020pro" and, as far as one knows, "CLIC"
# are the names that RDdata gives to two of these parts.
_KODAK = {"": 24}
_TECNICK = {"": 100}
_CLIC = {"professional validation": 41}
_CLIC_PRO = {"professional test": 250}
_CLIC_2020 = {
    "professional validation": 41,
    "mobile validation": 61,
    "all validation": 102,
    "professional test": 250,
    "mobile test": 178,
    "all test": 428,
}
_DIV2K = {"validation": 100, "training": 800, "both": 900}

# Patterns of names, of which case, spaces and punctuation are removed; the first that fits counts.
# CLIC's sets of other years are not known here.
_SETS = (
    (r"kodak(24|images?|photos?|dataset)?", _KODAK),
    (r".*tecnick.*", _TECNICK),
    (r"clic", _CLIC),
    (r"clic2020pro", _CLIC_PRO),
    (r"clic(2020)?((pro|mob|val|test|train|images?|dataset)[a-z]*)*", _CLIC_2020),
    (r".*div2k.*", _DIV2K),
)

# Words in a set's name that tell the part, as they begin.
_WORDS = {
    "pro": "professional",
    "mob": "mobile",
    "val": "validation",
    "test": "test",
    "train": "training",
}


def sizes(name: str) -> dict[str, int]:
    """Tells how many images a known set has.

    Args:
      name: of the set, as users call it or its folder: "DIV2K_valid_HR".

    Returns:
      dict of part to number of images, of the parts that the name may mean; the part is "" if
      there is but one. It is empty if the set or the part is not known.
    """
    folded = re.sub(r"[\W_]", "", name.casefold())
    for pattern, parts in _SETS:
        if re.fullmatch(pattern, folded):
            words = [part for word, part in _WORDS.items() if word in folded and "" not in parts]
            return {part: n for part, n in parts.items() if all(w in part for w in words)}
    return {}


def fits(name: str, count: int) -> bool:
    """Whether so many images may be the set of this name: it has as many, or is not known."""
    known = sizes(name)
    return not known or count in known.values()


def listed(name: str) -> str:
    """The sizes of a known set in words: "24", or "100 (validation) or 800 (training)"."""
    parts = [f"{count} ({part})" if part else str(count) for part, count in sizes(name).items()]
    return " or ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))


def note(name: str, count: int) -> str:
    """What is to be said of so many images that are called by this name; "" if nothing is."""
    if fits(name, count):
        return ""
    over = f"{listed(name)} images, these over {count}"
    return f"The published figures of {name} are means over {over}."
