"""W&B's workspace as code: training runs side by side, the brand's health over time, the gate.

    stylegate dashboard tracker.project=acme        one command, as a new saved view of the project

Needs wandb-workspaces (pip install -e '.[dashboards]') and an account. What it names is what the code tells a tracker:
tests/stylegate/test_dashboards.py holds the two together.
"""

import tempfile
from pathlib import Path
from typing import Any

from stylegate import wandbrun
from stylegate.config import Config
from stylegate.errors import ExitCode, SurroundingsError

NAME = "stylegate"
EXTRA = "pip install -e '.[dashboards]', in the checkout."


def save_wandb_workspace(config: Config) -> int:
    """Save the W&B workspace in the project of the config, and print its address. Returns 0.

    Raises SurroundingsError if W&B cannot be reached.
    """
    project = config.tracker.project
    with tempfile.TemporaryDirectory() as place:
        wandbrun.set_wandb_environment(Path(place))
        try:
            import wandb

            entity = config.tracker.entity or wandb.Api().default_entity
            saved = build_wandb_workspace(entity or "", project).save()
        except ImportError:
            raise SurroundingsError("wandb-workspaces is not installed", next_step=EXTRA) from None
        except Exception as error:
            raise SurroundingsError(
                f"W&B takes no workspace for project {project} ({wandbrun.wandb_error_in_words(error)})",
                next_step="wandb login, or WANDB_API_KEY; then the same command.",
            ) from None
        finally:
            wandbrun.stop_wandb_service()
    print(f"workspace: {saved.url}")
    return ExitCode.PASS


def build_wandb_workspace(entity: str, project: str) -> Any:
    """The W&B workspace with all its sections, not saved yet; no connection is needed."""
    import wandb_workspaces.workspaces as ws

    sections = {
        "Training": training_panels(),
        "Brand health": wandb_panels_of_batches_over_time(),
        "Gate": gate_panels(),
    }
    parts = [ws.Section(name=name, panels=panels, is_open=True) for name, panels in sections.items()]
    return ws.Workspace(entity=entity, project=project, name=NAME, sections=parts)


def evaluation_line_plot(title: str, *names: str) -> Any:
    """A W&B line plot of the values `evaluation/NAME` over the steps of evaluations."""
    import wandb_workspaces.reports.v2 as wr

    return wr.LinePlot(title=title, x=wandbrun.EVALUATED, y=[f"evaluation/{name}" for name in names])


def step_line_plot(title: str, *names: str) -> Any:
    """A W&B line plot of the values `names` over optimizer steps."""
    import wandb_workspaces.reports.v2 as wr

    return wr.LinePlot(title=title, x="Step", y=list(names))


def training_panels() -> list[Any]:
    """The W&B panels that put training runs side by side: do they learn, hold and copy, and at what cost."""
    import wandb_workspaces.reports.v2 as wr

    return [
        wr.MediaBrowser(title="samples by step, the base first", media_keys=["samples"], mode="gallery"),
        evaluation_line_plot("pass rate and its interval", "pass_rate", "pass_rate_low", "pass_rate_high"),
        evaluation_line_plot("style, with and without the trigger phrase", "style", "style_without_trigger"),
        evaluation_line_plot("loss of validation pictures", "eval_loss"),
        wr.LinePlot(title="the same by share of noise", x=wandbrun.EVALUATED, metric_regex=r"evaluation/eval_loss/.*"),
        evaluation_line_plot("drift of unrelated pictures", "drift"),
        evaluation_line_plot("nearest training picture: risk of copies", "nearest_training"),
        wr.BarPlot(title="chosen step", metrics=[wr.SummaryMetric("chosen/step")]),
        wr.BarPlot(title="chosen strength", metrics=[wr.SummaryMetric("chosen/strength")]),
        step_line_plot("loss", "loss"),
        step_line_plot("gradient norm", "grad_norm"),
        step_line_plot("learning rate", "learning_rate"),
        step_line_plot("steps per second", "steps_per_s"),
        step_line_plot("share of the time that waits for data", "data_wait_share"),
        step_line_plot("memory, GiB at most", "memory_gib"),
        evaluation_line_plot("share of the time that evaluations take", "share"),
    ]


def wandb_panels_of_batches_over_time() -> list[Any]:
    """The W&B panels on batches over time: is the brand still held, and at what price."""
    import wandb_workspaces.reports.v2 as wr

    def scatter_plot_over_time(title: str, name: str) -> Any:
        return wr.ScatterPlot(title=title, x=wr.SummaryMetric("_timestamp"), y=wr.SummaryMetric(name))

    return [
        scatter_plot_over_time("accepted", "gate/accept"),
        scatter_plot_over_time("style of what the LoRA draws", "style/lora"),
        wr.BarPlot(title="style", metrics=["style/base", "style/lora", "style/references"], orientation="v"),
        scatter_plot_over_time("seconds per accepted picture", "cost/seconds_per_accepted"),
        scatter_plot_over_time("at most this share is wrong", "promise/bound"),
        wr.ScalarChart(title="labels behind the promise", metric=wr.SummaryMetric("promise/labels")),
    ]


def gate_panels() -> list[Any]:
    """The W&B panels on one batch or several: verdicts, what brought them about, the pictures."""
    import wandb_workspaces.reports.v2 as wr

    verdicts = [f"gate/{verdict}" for verdict in ("accept", "review", "reject", "error")]
    return [
        wr.BarPlot(title="verdicts", metrics=list(verdicts), orientation="v"),
        wr.LinePlot(title="what held pictures back", x="Step", metric_regex="reasons/.*"),
        wr.LinePlot(title="measures of the batch", x="Step", metric_regex="batch/.*"),
        wr.ScalarChart(title="slots that have an accepted picture", metric=wr.SummaryMetric("gate/yield")),
        wr.WeavePanelSummaryTable(table_name="gate/verdicts"),
    ]
