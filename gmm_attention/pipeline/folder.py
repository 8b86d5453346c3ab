"""A folder of images through encoder or decoder: which are done, skipped or failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from gmm_attention import cli
from gmm_attention.errors import CodecError, within_memory
from gmm_attention.pipeline.run import Processes, Task, run
from gmm_attention.pipeline.summary import Summary
from gmm_attention.pipeline.workers import report_lost_processes


class NamedItem(Protocol):
    """An image on disk; str() of it is the path that messages show."""

    @property
    def name(self) -> str:
        """The image's name in the summary, relative to the folder that was given."""


_Named = TypeVar("_Named", bound=NamedItem)
_Named_contra = TypeVar("_Named_contra", bound=NamedItem, contravariant=True)


class ImageTask(Task[_Named_contra], Protocol[_Named_contra]):
    """A Task whose items have a `name` and whose results are dicts of figures."""

    def existing(self, item: _Named_contra) -> dict[str, Any] | None:
        """Figures of an image that an earlier run has done, or None."""

    def text(self, item: _Named_contra, figures: dict[str, Any]) -> str:
        """What is printed about an image that is done."""


def run_folder(
    items: Sequence[_Named],
    task: ImageTask[_Named],
    processes: Processes,
    summary: Summary,
    skip_existing: bool,
    quiet: bool,
) -> tuple[list[dict[str, Any]], list[_Named]]:
    """Takes images through a task, prints a text about each, and adds its row to the summary.

    Args:
      items: what the task works on.
      task: ImageTask.
      processes: Processes.
      summary: Summary.
      skip_existing: whether to leave out images that an earlier run has done.
      quiet: whether to print errors only.

    Returns:
      figures of the images that this call has done, in their order, and the items that failed.

    Raises:
      CodecError: a worker died, or a cluster is lost.
    """
    if skip_existing:
        items = _without_existing(items, task, summary, quiet)
    failed: list[_Named] = []

    def finish(
        outcome: tuple[_Named, Callable[[], dict[str, Any]]],
    ) -> tuple[str, dict[str, Any]]:
        item, result = outcome
        try:
            with within_memory(item):
                figures = result()
        except CodecError as error:
            failed.append(item)
            summary.add({"name": item.name, "error": str(error)})
            raise
        summary.add({"name": item.name, **figures})
        return task.text(item, figures), figures

    with report_lost_processes("--skip-existing goes on from here"):
        outcomes = run(task, items, processes)
        return cli.process_all(outcomes, finish, quiet, len(items)), failed


def _without_existing(
    items: Sequence[_Named], task: ImageTask[_Named], summary: Summary, quiet: bool
) -> list[_Named]:
    """Leaves out the images that an earlier run has done, and adds them to the summary."""
    remaining = []
    for item in items:
        figures = task.existing(item)
        if figures is None:
            remaining.append(item)
        else:
            summary.add_existing({"name": item.name, **figures})
    if not quiet:
        print(f"{len(items) - len(remaining)} of {len(items)} images are done already")
    return remaining
