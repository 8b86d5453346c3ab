"""Folders that are called like a known image set, and hold another number of images."""

import pytest

from gmm_attention.evaluation import image_sets

KNOWN = [
    ("Kodak", 24, "24"),
    ("KODAK", 24, "24"),
    ("kodak_images", 24, "24"),
    ("Tecnick", 100, "100"),
    ("TECNICK_RGB_1200x1200", 100, "100"),
    ("clic", 41, "41 (professional validation)"),
    ("CLIC2020pro", 250, "250 (professional test)"),
    ("clic_professional_valid", 41, "41 (professional validation)"),
    ("CLIC2020-mobile-test", 178, "178 (mobile test)"),
    ("clic 2020 test", 428, "250 (professional test), 178 (mobile test) or 428 (all test)"),
    ("DIV2K", 100, "100 (validation), 800 (training) or 900 (both)"),
    ("div2k_train_HR", 800, "800 (training)"),
    ("DIV2K_valid_HR", 100, "100 (validation)"),
]


@pytest.mark.parametrize("name, size, listed", KNOWN)
def test_a_set_of_another_size_is_told(name, size, listed):
    assert image_sets.fits(name, size) and image_sets.note(name, size) == ""
    for count in (1, size - 1, size + 2):
        assert not image_sets.fits(name, count)
        assert image_sets.note(name, count) == (
            f"The published figures of {name} are means over {listed} images, these over {count}."
        )


@pytest.mark.parametrize(
    "name", ["holiday", "clicks", "bicyclic", "CLIC2021", "Kodak Gold 200", ""]
)
def test_nothing_is_said_of_other_folders(name):
    assert image_sets.fits(name, 3) and image_sets.note(name, 3) == ""
