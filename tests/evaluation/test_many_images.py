"""What the rows of a model depend on."""

from gmm_attention.checkpoints import locate
from gmm_attention.codec import efforts
from gmm_attention.evaluation import many_images
from gmm_attention.start_up import Setup


def inputs(model, effort, **settings):
    found = locate.locate(model)
    found.settings.update(settings)
    setup = Setup(found.path, "float32", "onnx", "cpu", 1, True, effort)
    photographs = [(model / "settings.json", "a")]  # of which only the bytes count
    (task,) = many_images.model_tasks("s", photographs, "m", found, setup, False)
    return task.identity["inputs"]


def test_only_searched_latents_depend_on_the_search_and_its_aim(tiny_path, monkeypatch):
    before = [inputs(tiny_path, effort) for effort in (0, 1)]
    assert [inputs(tiny_path, effort) for effort in (0, 1)] == before
    assert inputs(tiny_path, 0, **{"lambda": 0.1}) == before[0]
    assert inputs(tiny_path, 1, **{"lambda": 0.1}) != before[1]
    assert inputs(tiny_path, 1, metric="ms-ssim") != before[1]
    monkeypatch.setattr(efforts, "METHOD", "another")
    assert inputs(tiny_path, 0) == before[0] and inputs(tiny_path, 1) != before[1]
