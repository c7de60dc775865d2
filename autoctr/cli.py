"""The command line: reading arguments and printing, nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autoctr.allocator import keep_freed_memory
from autoctr.errors import UserError

if TYPE_CHECKING:
    from autoctr.data.dataset import Dataset
    from autoctr.search.record import Record

#: Options of a search that no recipe sets.
OF_THIS_MACHINE = {"recipe", "export_to", "root", "storage", "workers", "gpus", "backend", "scheduler"}
FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(path_type=Path)


class _Duration(click.ParamType):  # type: ignore[type-arg]
    """A time such as 90s, 20m, 1h30m or plain seconds."""

    name = "time"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> float:
        if isinstance(value, (int, float)):
            return float(value)
        match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?", value.strip())
        if not match or not any(match.groups()):
            self.fail(f"{value!r} is not a time; write 90s, 20m or 1h30m", parameter, context)
        hours, minutes, seconds = (float(part or 0) for part in match.groups())
        return 3600 * hours + 60 * minutes + seconds


class _CohortSize(click.ParamType):  # type: ignore[type-arg]
    """A whole number, or auto."""

    name = "size"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> int | str:
        if value == "auto":
            return "auto"
        try:
            return int(value)
        except ValueError:
            self.fail(f"{value!r} is no size of a cohort; write a whole number or auto", parameter, context)


class _Numbers(click.ParamType):  # type: ignore[type-arg]
    """Whole numbers from 0, with commas between them."""

    name = "numbers"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        if not re.fullmatch(r"\d+(,\d+)*", value):
            self.fail(f"{value!r} are no numbers of GPUs; write 0 or 0,1,2", parameter, context)
        return tuple(map(int, value.split(",")))


DURATION, COHORT_SIZE, NUMBERS = _Duration(), _CohortSize(), _Numbers()


def _help_alone(context: click.Context) -> None:
    """A group without a command prints its help."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@click.group(
    invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(package_name="autoctr")
@click.pass_context
def cli(context: click.Context) -> None:
    """Find, prove and export one click-through-rate model for many domains.

    \b
    autoctr search --dataset taobao-sim            search on simulated logs
    autoctr search --table events.parquet --schema schema.yaml
    autoctr show NAME                              what was found
    autoctr confirm NAME                           whether it holds with other seeds
    autoctr export NAME --out model/               a model that runs without autoctr
    autoctr predict model/ IN.parquet OUT.parquet  scores for a table of any size
    autoctr bench model/                           how fast it answers
    autoctr refit --winner model/card.json ...     the same network trained on new rows
    """
    _help_alone(context)


def _data_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(
        [
            click.option("--dataset", "-d", help="Name of a built-in data set; see: autoctr data list."),
            click.option("--data", type=FOLDER, help="Folder of the built-in data set's raw files."),
            click.option("--table", type=FILE, help="Your own rows: a parquet or csv file, or a folder of them."),
            click.option("--schema", type=FILE, help="What --table's columns are (YAML).  [default: a search guesses]"),
            click.option("--rows", type=int, help="taobao-sim: about how many rows to simulate."),
            click.option("--truth", help="taobao-sim: the planted model (full, additive, shared)."),
            click.option("--data-seed", type=int, help="Seed of the simulation, the negatives and the split."),
        ]
    ):
        command = option(command)
    return command


def _where(command: Callable[..., Any]) -> Callable[..., Any]:
    help = "Database of the study, postgresql://USER:PASSWORD@HOST/NAME.  [default: SQLite in the study's folder]"
    command = click.option("--storage", help=help)(command)
    return click.option("--root", type=FOLDER, default="studies", show_default=True, help="Folder of all studies.")(
        command
    )


def _formats(command: Callable[..., Any]) -> Callable[..., Any]:
    help = "Add model.onnx (onnx) or model.pt2 (pt2); commas or repeated.  [default: python alone]"
    return click.option("--format", "formats", multiple=True, help=help)(command)


def _worker_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(
        [
            click.option("--workers", "-w", type=int, help="Processes that work on the study at once.  [default: 1]"),
            click.option("--gpus", type=NUMBERS, help="GPUs of this machine, such as 0,1,2: at least a worker each."),
            click.option("--backend", help="loky, processes of this machine, or dask.  [default: loky]"),
            click.option("--scheduler", help="With --backend dask: the cluster's scheduler, tcp://HOST:PORT."),
        ]
    ):
        command = option(command)
    return command


def _given(arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments that were given, with the data seed under the name the data sets know."""
    if "data_seed" in arguments:
        arguments["seed"] = arguments.pop("data_seed")
    return {name: value for name, value in arguments.items() if value is not None}


@cli.command()
@_data_options
@click.option("--recipe", help="A shipped study (data set, space and budget) or a YAML file; options override it.")
@click.option("--space", "-s", help="Name of a search space or a YAML file; see: autoctr spaces.  [default: joint]")
@click.option("--trials", "-n", type=int, help="Total number of trials.  [default: 30 without --time-limit]")
@click.option("--time-limit", "-t", type=DURATION, help="Total wall time, such as 20m or 1h30m.")
@click.option("--study", help="Name of the study.  [default: data set and space]")
@click.option("--metric", help="wauc, auc or logloss of the first label.  [default: wauc]")
@click.option(
    "--objectives",
    help="The metric and a cost, such as wauc,madds: search what is both good and cheap. Costs: madds (multiply-adds "
    "per row), parameters, latency (measured, so noisy).",
)
@click.option(
    "--protect", multiple=True, help="No winner worse than plain there: 'domain:NAME>=plain' (repeatable), or all."
)
@click.option("--device", help="auto, cpu, cuda or cuda:N.  [default: auto]")
@click.option("--precision", help="auto, fp32 or bf16, for training steps.  [default: the space's, or auto]")
@click.option("--cohort", type=COHORT_SIZE, help="How many candidates train together at most.  [default: auto]")
@click.option("--checkpoint-every", type=DURATION, help="Most training time that a crash may cost.  [default: 60s]")
@click.option("--confirm", type=int, help="Seeds of a confirmation in the end, within the time limit.  [default: none]")
@click.option("--seed", type=int, help="Seed of everything random in the search.  [default: 0]")
@click.option("--export", "export_to", type=FOLDER, help="In the end, write the winner here, as autoctr export does.")
@_worker_options
@_where
def search(recipe: str | None, export_to: Path | None, **arguments: Any) -> None:
    """Search the best network for a data set, and prove it on the test split."""
    from autoctr.export.folder import check_free
    from autoctr.progress import printer
    from autoctr.search.run import search as run

    if export_to is not None:
        check_free(export_to)
    options = {} if recipe is None else _read_recipe(recipe)
    seed, data_seed = arguments.pop("seed"), arguments.pop("data_seed")
    options |= {name: value for name, value in arguments.items() if value not in (None, ())}
    options["seed"] = seed if seed is not None else options.get("seed", 0)
    if data_seed is not None:
        options["data_seed"] = data_seed
    with printer() as watcher:
        study = _finishing(lambda: run(**options, watcher=watcher), watcher, options)
    _conclude(study)
    if export_to is not None:
        _export(study.name, export_to, root=study.folder.parent, storage=study.storage)


def _read_recipe(name: str) -> dict[str, Any]:
    import yaml

    from autoctr.shipped import find, read_yaml

    path = find("studies", name)
    try:
        recipe = yaml.safe_load(read_yaml(path))
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML ({error})".replace("\n", " ")) from error
    legal = {str(parameter.name): parameter for parameter in search.params}
    legal = {key: legal[key] for key in sorted(legal.keys() - OF_THIS_MACHINE)}
    if not isinstance(recipe, dict):
        raise UserError(f"{path} must be a mapping; legal keys are {', '.join(legal)}")
    recipe = {str(key).replace("-", "_"): value for key, value in recipe.items() if key != "description"}
    for key, value in recipe.items():
        if key not in legal:
            raise UserError(f"{path}: unknown key {key!r}; legal are {', '.join(legal)}")
        if not isinstance(value, (str, int, float)):
            raise UserError(f"{path}: {key} is {value!r}; it must be one value")
        try:
            recipe[key] = legal[key].type.convert(value, None, None)
        except click.BadParameter as error:
            raise UserError(f"{path}: {key}: {error.message}") from error
    return recipe


@cli.command()
@click.argument("name")
@click.option("--fork", help="Go on in a new study of this name that takes over the trials that still hold.")
@click.option("--space", "-s", help="With --fork: the new study's search space.")
@click.option("--objectives", help="With --fork: the new study's objectives, such as wauc,madds.")
@click.option("--protect", multiple=True, help="With --fork: the new study's protected domains.")
@click.option("--trials", "-n", type=int, help="A new total number of trials.")
@click.option("--time-limit", "-t", type=DURATION, help="A new total wall time.")
@_worker_options
@_where
def resume(name: str, **arguments: Any) -> None:
    """Continue a study from what is stored."""
    from autoctr.progress import printer
    from autoctr.search.run import resume as run

    with printer() as watcher:
        study = _finishing(lambda: run(name, **_given(arguments), watcher=watcher), watcher, arguments)
    _conclude(study)


def _conclude(study: Any) -> None:
    """Print what a run found; a run that ends without any model is a failure."""
    _print_study(study)
    if study.best() is None:
        sys.exit(1)
    if study.certificate is None:
        click.echo(f"one training each; prove it over several with: autoctr confirm {study.name}")


def _finishing(work: Callable[[], Any], watcher: Any, options: dict[str, Any]) -> Any:
    """Run ``work``; SIGTERM ends it like Ctrl-C, with a line that says how to go on, and so does a full disk."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return work()
    except KeyboardInterrupt:
        watcher.close()
        click.echo(f"stopped; {_how_to_go_on(watcher.study, options)}", err=True)
        sys.exit(130)
    except Exception as error:
        if not _is_of_the_machine(error):
            raise
        watcher.close()
        reason = str(error.__cause__ or error).splitlines()[0]
        raise UserError(f"stopped by the machine: {reason}; {_how_to_go_on(watcher.study, options)}") from error


def _how_to_go_on(study: str | None, options: dict[str, Any]) -> str:
    from autoctr.search.database import without_password

    where = "" if options["root"] == Path("studies") else f" --root {options['root']}"
    where += f" --storage '{without_password(options['storage'])}'" if options.get("storage") else ""
    where += f" --workers {options['workers']}" if options.get("workers") else ""
    if study is None:
        return "nothing was started"
    return f"everything finished is stored; continue with: autoctr resume {study}{where}"


def _is_of_the_machine(error: Exception) -> bool:
    """Whether a disk, a file or a database failed, and not this program."""
    from optuna.exceptions import StorageInternalError
    from safetensors import SafetensorError
    from sqlalchemy.exc import SQLAlchemyError

    if isinstance(error, BrokenPipeError):
        return False
    return isinstance(error, (OSError, StorageInternalError, SafetensorError, SQLAlchemyError))


@cli.command()
@_where
def studies(root: Path, storage: str | None) -> None:
    """List the studies."""
    from autoctr.search.database import without_password
    from autoctr.search.run import load_study
    from autoctr.search.study import names

    listed = names(root, storage)
    if not listed:
        where = root if storage is None else without_password(storage)
        click.echo(f"no studies in {where}; start one with: autoctr search --dataset taobao-sim")
    for name in listed:
        try:
            study = load_study(name, root=root, storage=storage)
        except UserError as error:  # one damaged study must not hide the others
            click.echo(f"{name:30} {error}")
            continue
        records, best = study.records(), study.best()
        done = sum(record.state in ("COMPLETE", "PRUNED", "FAIL") for record in records)
        metric = study.settings.metric
        found = "no finished trial" if best is None else f"best {metric} {best.value:.5f} (trial {best.number})"
        click.echo(f"{name:30} {done:4} trials  {found}")


@cli.command()
@click.argument("name")
@click.option("--trial", help="Show one trial instead of the winner: a number or pareto:fastest, knee or best.")
@click.option("--json", "as_json", is_flag=True, help="Everything, for programs.")
@_where
def show(name: str, trial: str | None, as_json: bool, root: Path, storage: str | None) -> None:
    """Show what a study found."""
    from autoctr.search.front import find_trial
    from autoctr.search.run import load_study
    from autoctr.search.summary import summary

    study = load_study(name, root=root, storage=storage)
    if as_json and trial is None:
        click.echo(json.dumps(summary(study), indent=1))
    elif trial is not None:
        record = _record(study, find_trial(study, trial))
        if as_json:
            click.echo(json.dumps(record.to_dict(), indent=1))
        else:
            _print_trial(record, study.settings.metric)
    else:
        _print_study(study)


def _record(study: Any, number: int) -> Record:
    records: dict[int, Record] = {record.number: record for record in study.records()}
    if number not in records:
        raise UserError(f"study {study.name} has no trial {number}; it has 0 to {len(records) - 1}")
    return records[number]


def _print_study(study: Any) -> None:
    from autoctr.report import study_text

    click.echo(study_text(study))


def _print_trial(record: Record, metric: str) -> None:
    from autoctr.report import trial_text

    click.echo(trial_text(record, metric))


@cli.command()
@click.argument("name")
@click.option("--out", type=FILE, help="The page to write.  [default: NAME.html]")
@click.option("--text", is_flag=True, help="Print the same for a terminal instead.")
@_where
def report(name: str, out: Path | None, text: bool, root: Path, storage: str | None) -> None:
    """Write a study as a page with pictures: one file that opens anywhere, also while the search goes on."""
    from autoctr.search.run import load_study

    if text and out is not None:
        raise UserError("--text prints and --out writes a page; give one of them")
    study = load_study(name, root=root, storage=storage)
    if text:
        from autoctr.report.terminal import print_report

        print_report(study)
        return
    from autoctr.atomic import write_text
    from autoctr.report.page import study_page

    path = out if out is not None else Path(f"{name}.html")
    write_text(path, study_page(study))
    click.echo(f"wrote {path}")


@cli.command()
@click.argument("name")
@click.option("--port", type=int, default=8080, show_default=True, help="To listen at; 0 takes any that is free.")
@_where
def dashboard(name: str, port: int, root: Path, storage: str | None) -> None:
    """Open optuna-dashboard on a study, also during a search: it reads only, and Ctrl-C ends it."""
    from autoctr.report.dashboard import dashboard as serve
    from autoctr.search.run import load_study

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with (
        serve(load_study(name, root=root, storage=storage), port) as (address, run),
        contextlib.suppress(KeyboardInterrupt),
    ):
        click.echo(f"{address} (Ctrl-C ends it)")
        run()


@cli.command()
@click.argument("name")
@click.option("--finalists", type=int, default=3, show_default=True, help="The best trials that take part.")
@click.option("--seeds", type=int, default=5, show_default=True, help="How many times each network is trained.")
@click.option("--plain", help="A study of --space plain on the same data, whose best trial takes part.")
@_where
def confirm(name: str, **arguments: Any) -> None:
    """Train the best trials and the plain networks with several seeds, and certify the winner on the test split."""
    from autoctr.progress import printer
    from autoctr.search.confirm import confirm as run
    from autoctr.search.run import load_study

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with printer() as printing:
        try:
            run(name, **arguments, on_line=printing.line, on_progress=printing.now)
        except KeyboardInterrupt:
            printing.close()
            click.echo("stopped; trained networks are stored; continue with the same command", err=True)
            sys.exit(130)
    _print_study(load_study(name, root=arguments["root"], storage=arguments["storage"]))


@cli.command()
@click.argument("folder", type=FOLDER)
@click.argument("table", type=FILE)
@click.argument("out", type=FILE)
@click.option("--keep", help="Columns to copy beside the scores, with commas between them.")
@click.option("--on-error", default="stop", show_default=True, help="stop at a damaged row, or skip it.")
@click.option("--format", default="python", show_default=True, help="What computes: python, onnx or pt2.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
def predict(folder: Path, table: Path, out: Path, keep: str | None, on_error: str, format: str, device: str) -> None:
    """Score the rows of TABLE with the export in FOLDER and write OUT (.parquet or .csv), a row for every row.

    Tables may be larger than memory. A damaged row gets no score with --on-error skip, and a torn line of csv is left
    out.
    """
    from autoctr.export.predict_table import predict_table
    from autoctr.progress import printer
    from autoctr.search.inputs import find_device

    kept = [] if keep is None else [name.strip() for name in keep.split(",")]
    with printer() as printing:
        done = predict_table(
            folder,
            table,
            out,
            keep=kept,
            on_error=on_error,
            device="cpu" if device == "auto" and format != "python" else find_device(device),
            format=format,
            on_rows=lambda rows: printing.now(f"{rows:,} rows scored"),
            on_line=printing.line,
        )
    left = [f"{done.damaged:,} of them without a score"] if done.damaged else []
    left += [f"{done.torn:,} torn lines left out"] if done.torn else []
    click.echo(", ".join([f"wrote {done.rows:,} rows to {out}", *left]))


@cli.command()
@_data_options
@click.option("--winner", type=FILE, required=True, help="What show --json printed, or an export's card.json.")
@click.option("--out", type=FOLDER, required=True, help="Folder to write.")
@click.option("--metric", default="wauc", show_default=True, help="Chooses the best pass: wauc, auc or logloss.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the weights and the order of the rows.")
@click.option("--precision", default="auto", show_default=True, help="auto, fp32 or bf16.")
@_formats
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
def refit(winner: Path, out: Path, **arguments: Any) -> None:
    """Train a found network anew, on the rows you give, and write it as a folder that runs without autoctr.

    Under torchrun all its processes train the one network, each on a share of every batch.
    """
    from autoctr.progress import Printer, printer
    from autoctr.search.refit import refit as run
    from autoctr.training.replicas import is_launched

    speaks = not is_launched() or os.environ["RANK"] == "0"
    given = {name: value for name, value in arguments.items() if value is not None}
    with printer() if speaks and not is_launched() else contextlib.nullcontext(Printer(None)) as printing:
        found = run(winner, out, **given, on_progress=printing.now if speaks else lambda text: None)
    if not speaks:
        return
    metric, values = arguments["metric"], []
    for split, scores in (("validation", found.valid), ("test", found.test)):
        value = getattr(scores, metric)
        values.append(f"{split} {metric} " + ("undefined" if value is None else f"{value:.5f}"))
    click.echo(f"{', '.join(values)}; {found.passes:.3g} passes in {found.seconds:.1f} s")
    click.echo(f"wrote {found.folder}; try it: python {out / 'predict.py'} INPUT.csv OUTPUT.csv")


@cli.command()
@click.argument("name")
@click.option("--out", type=FOLDER, required=True, help="Folder to write.")
@click.option(
    "--trial", help="Its number, or pareto:fastest, pareto:knee or pareto:best of the front.  [default: the winner]"
)
@click.option("--domains", multiple=True, help="Names of domains, with commas or repeated; others count as unknown.")
@click.option("--embeddings", default="fp32", show_default=True, help="Numbers of embedding rows: fp32, fp16 or int8.")
@_formats
@_where
def export(name: str, out: Path, domains: tuple[str, ...], **options: Any) -> None:
    """Write a trial's network as a folder that runs without autoctr."""
    _export(name, out, domains=domains or None, **options)


def _export(name: str, out: Path, **options: Any) -> None:
    from autoctr.report.export import export_lines
    from autoctr.search.deliver import export as deliver

    folder, difference = deliver(name, out, **options)
    click.echo(f"wrote {folder}; its probabilities differ from the searched network's by at most {difference:.1e}")
    for line in export_lines(folder):
        click.echo(line)
    click.echo(f"try it: python {folder / 'predict.py'} INPUT.csv OUTPUT.csv")


@cli.command()
@click.argument("folder", type=FOLDER)
@click.option("--rows", type=int, default=16384, show_default=True, help="Rows to draw; batches are cut from them.")
@click.option("--threads", type=int, help="Threads to compute with.  [default: one per core]")
@click.option("--json", "as_json", is_flag=True, help="The same for programs.")
def bench(folder: Path, rows: int, threads: int | None, as_json: bool) -> None:
    """Measure how fast the export in FOLDER answers, in every format it holds, beside a plain network.

    Rows are drawn from what its encoder knows, so that no data is needed.
    """
    from autoctr.export.bench import bench as run
    from autoctr.export.bench import bench_text

    found = run(folder, rows=rows, threads=threads)
    click.echo(json.dumps(found.to_dict(), indent=1) if as_json else bench_text(found))


@cli.command()
@_data_options
@click.option("--models", help="Some of dnn,dcn-v2,deepfm,autoint,mmoe,ple,star,pepnet.  [default: all]")
@click.option("--study", "studies", multiple=True, help="Add this study's winner; may be repeated.")
@click.option("--winner", "winners", type=FILE, multiple=True, help="Add what a card.json or show --json file holds.")
@click.option("--twins", is_flag=True, help="Beside each winner also the same with every method off.")
@click.option("--seeds", type=int, default=5, show_default=True, help="How many times each model is trained.")
@click.option("--precision", default="fp32", show_default=True, help="Of training steps: auto, fp32 or bf16.")
@click.option("--metric", default="wauc", show_default=True, help="wauc, auc or logloss of the first label.")
@click.option("--epochs", type=int, help="Most passes over the training rows.  [default: each model's own]")
@click.option("--out", type=FILE, help="File to continue.  [default: results/compare-DATASET.csv in --root]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--markdown", is_flag=True, help="Print the table for a README.")
@_where
def compare(models: str | None, markdown: bool, **arguments: Any) -> None:
    """Train models with the same seeds and compare them on the test split.

    The first model is the one that the others are compared with. A run that --out holds is not run again.
    """
    from autoctr.progress import printer
    from autoctr.report.comparison import comparison_markdown, comparison_text
    from autoctr.search.compare import compare as run

    names = None if models is None else [name.strip() for name in models.split(",") if name.strip()]
    data_seed = arguments.pop("data_seed")
    options = _given(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with printer() as printing:

        def line(text: str) -> None:
            click.echo(text, err=True) if markdown else printing.line(text)

        try:
            found = run(**options, models=names, data_seed=data_seed, on_line=line, on_progress=printing.now)
        except KeyboardInterrupt:
            printing.close()
            click.echo("stopped; finished runs are stored; continue with the same command", err=True)
            sys.exit(130)
        printing.close()
    click.echo()
    click.echo(comparison_markdown(found) if markdown else comparison_text(found))
    if found.failures:
        sys.exit(1)


@cli.command()
@_data_options
@click.option("--source", help="The rich domain.  [default: the one with most training rows]")
@click.option("--target", "targets", multiple=True, help="A poor domain; may be repeated.  [default: all others]")
@click.option("--warm-up", type=float, default=0.4, show_default=True, help="Share of the days before the first score.")
@click.option("--target-days", type=int, default=1, show_default=True, help="Days between two fine-tunings.")
@click.option("--cpm-days", type=int, default=3, show_default=True, help="Days per refresh of the complete model.")
@click.option("--tpm-days", type=int, default=2, show_default=True, help="Days per refresh of the tiny model.")
@click.option("--tpm-field", "fields", multiple=True, help="A field of the tiny model.  [default: user and item]")
@click.option("--tpm-embedding", type=int, default=0, help="Its embedding.  [default: as the target's]")
@click.option("--snapshots", "window", type=int, default=4, show_default=True, help="Snapshots pooled per row.")
@click.option("--pooling", default="attention", show_default=True, help="attention, mean or last.")
@click.option("--day-length", type=int, default=0, help="In the time stamps' unit.  [default: read off their size]")
@click.option("--epochs", type=int, default=2, show_default=True, help="Passes over the rows of each refresh.")
@click.option("--batch", type=int, default=512, show_default=True, help="Rows per step.")
@click.option("--learning-rate", type=float, default=1e-3, show_default=True, help="Adam step size.")
@click.option("--norm", type=click.Choice(["none", "batch"]), default="none", show_default=True, help="Of deep parts.")
@click.option("--seeds", type=int, default=1, show_default=True, help="How many times all variants are replayed.")
@click.option("--seed", type=int, default=0, show_default=True, help="The first of the seeds.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--json", "as_json", is_flag=True, help="Everything, for programs.")
def stream(as_json: bool, device: str, **arguments: Any) -> None:
    """Replay a log day by day: what poor domains gain from a rich one (E-CDCTR).

    Needs time stamps. After the warm-up each day's target rows are scored, then learned from. The method stands beside
    daily fine-tuning, training anew each day, and itself without either of its two pre-training models.
    """
    from autoctr.data.presets import recipe_for
    from autoctr.progress import printer
    from autoctr.report.curve import replay_text
    from autoctr.search.inputs import find_device
    from autoctr.training.schedule import Schedule
    from autoctr.training.stream import plain_candidate
    from autoctr.training.stream import stream as run

    def taken(*names: str) -> dict[str, Any]:
        return {name: arguments.pop(name) for name in names}

    candidate, where = plain_candidate(**taken("batch", "learning_rate", "norm")), find_device(device)
    source = {"seed": arguments.pop("data_seed"), **taken("data", "table", "schema", "rows", "truth")}
    recipe, schedule = recipe_for(arguments.pop("dataset"), **source), Schedule(**arguments)
    with printer() as printing:
        note = (lambda text: None) if as_json else printing.now
        found = run(recipe, schedule, candidate, device=where, note=note)
        printing.close()
    click.echo(json.dumps(found.to_dict(), indent=1) if as_json else replay_text(found))


@cli.command()
@_data_options
@click.option("--rewind", default="0,0.1,0.5,1", show_default=True, help="Values of k, in passes over the rows.")
@click.option(
    "--keep-rate", type=float, default=0.2, show_default=True, help="Share of the deep weights that survives."
)
@click.option("--ticket-rounds", type=int, default=4, show_default=True, help="Prunings, each followed by a rewind.")
@click.option("--ticket-unit", default="domain", show_default=True, help="A mask per domain, task or network.")
@click.option("--seeds", type=int, default=5, show_default=True, help="How many times everything is trained.")
@click.option("--epochs", type=int, default=10, show_default=True, help="Most passes of a final fit.")
@click.option("--barrier", type=float, help="Measure the error barrier between two trainings of this many passes.")
@click.option("--metric", default="wauc", show_default=True, help="wauc, auc or logloss of the first label.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
def tickets(rewind: str, device: str, **arguments: Any) -> None:
    """Train lottery tickets rewound to several steps k, beside the same masks on fresh weights."""
    from autoctr.model.architecture import FIXED
    from autoctr.model.candidate import Candidate
    from autoctr.report.rewinding import rewinding_text
    from autoctr.search.inputs import find_device
    from autoctr.search.rewinding import rewinding
    from autoctr.training.metrics import METRICS

    fields = {name: arguments.pop(name) for name in ("keep_rate", "ticket_rounds", "ticket_unit", "epochs")}
    taken = {name: arguments.pop(name) for name in ("seeds", "barrier", "metric")}
    if taken["metric"] not in METRICS:
        raise UserError(f"unknown metric {taken['metric']!r}; legal are {', '.join(METRICS)}")
    try:
        values = [float(value) for value in rewind.split(",")]
    except ValueError:
        raise UserError(f"--rewind is {rewind!r}; legal are numbers of passes, such as 0,0.5") from None
    try:
        candidate = Candidate(**fields)
    except ValueError as error:
        raise UserError(f"{error}; see: autoctr tickets --help") from error
    result = rewinding(
        _load(None, arguments),
        candidate.replace(wiring=FIXED[candidate.architecture](candidate.blocks)),
        values,
        seeds=taken["seeds"],
        metric=taken["metric"],
        barrier_epochs=taken["barrier"],
        device=find_device(device),
        on_line=click.echo,
    )
    click.echo()
    click.echo(rewinding_text(result))


@cli.command()
def spaces() -> None:
    """List the shipped search spaces."""
    from autoctr.search.space import load_space
    from autoctr.shipped import names

    for name in names("search_spaces"):
        space = load_space(name)
        click.echo(f"{name:12} {len(space.vary):3} fields vary  {space.description}")


@cli.group(invoke_without_command=True)
@click.pass_context
def data(context: click.Context) -> None:
    """Look at data sets and prepare them."""
    _help_alone(context)


@data.command("list")
def list_datasets() -> None:
    """List the built-in data sets."""
    from autoctr.data.presets import PRESETS

    for name, preset in PRESETS.items():
        needs = "needs --data DIR" if preset.needs_files else "built in"
        click.echo(f"{name:16} {needs:17} {preset.summary}")


@data.command()
@click.argument("name", required=False)
@_data_options
@click.option("--json", "as_json", is_flag=True, help="The same for programs.")
def describe(name: str | None, as_json: bool, **arguments: Any) -> None:
    """Describe a data set: rows, domains, fields, and the best reachable score where it is known."""
    from autoctr.data.describe import describe as facts
    from autoctr.data.describe import describe_text

    dataset = _load(name, arguments)
    click.echo(json.dumps(facts(dataset), indent=1) if as_json else describe_text(dataset))


@data.command()
@click.argument("name", required=False)
@_data_options
def prepare(name: str | None, **arguments: Any) -> None:
    """Encode a data set into the cache."""
    dataset = _load(name, arguments)
    rows = sum(map(len, (dataset.train, dataset.valid, dataset.test)))
    click.echo(f"{dataset.name}: {rows} rows encoded in {dataset.folder}")


def _load(name: str | None, arguments: dict[str, Any]) -> Dataset:
    from autoctr.data.presets import load_dataset

    options = _given(arguments)
    dataset = options.pop("dataset", None)
    if name and dataset and name != dataset:
        raise UserError(f"two data sets were named, {name} and {dataset}; name one")
    return load_dataset(name or dataset, **options)


@data.command()
@click.argument("table", type=FILE)
@click.option("--out", type=FILE, help="File to write.  [default: print]")
def schema(table: Path, out: Path | None) -> None:
    """Write a first schema for a table by looking at it."""
    from autoctr.atomic import write_text
    from autoctr.data.guess import guess

    text = guess(table).text
    if out is None:
        click.echo(text)
        return
    if out.exists():
        raise UserError(f"{out} exists; choose another --out, or remove it first")
    write_text(out, text)
    click.echo(f"wrote {out}; check its roles and kinds, then: autoctr search --table {table} --schema {out}")


def main() -> None:
    """Entry point: a user's mistake is one line and exit code 2."""
    # OpenMP threads that wait by spinning bring two processes on the same cores to a standstill. Short waits cost a
    # tenth of the speed of a lone process and keep shared machines going. Read when torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    keep_freed_memory()
    warnings.showwarning = lambda message, *_, **__: click.echo(f"autoctr: warning: {message}", err=True)
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        sys.exit(_fail(error.format_message().replace("\n", " ")))
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except UserError as error:
        sys.exit(_fail(str(error)))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _fail(message: str) -> int:
    click.echo(f"autoctr: {message}", err=True)
    return 2
