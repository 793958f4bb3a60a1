"""Runs on language from the outside: train one, compare several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from relational_rnn.recipes.babi import CoreName
from relational_rnn.recipes.comparison import Trial, TuningConfig, for_core, run_grid
from relational_rnn.recipes.language import LanguageRun
from relational_rnn.recipes.language_evaluation import LanguageEvaluation, evaluate_language
from relational_rnn.recipes.language_folder import check_same_text, language_config_json, run_files
from relational_rnn.recipes.language_problem import (
    LanguageProblem,
    absolute_text,
    build_language_model,
    read_corpus,
)
from relational_rnn.recipes.running import check_grid, print_report, read_result, say_nothing
from relational_rnn.tasks.language.corpus import Corpus
from relational_rnn.training import Outcome, Progress, RunFolder, fit


def train_language(
    config: LanguageRun,
    folder: Path | str,
    *,
    resume: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    on_report: Callable[[str], None] | None = None,
    corpus: Corpus | None = None,
) -> Outcome:
    """Train a run into a folder.

    Args:
        config: everything that decides the run.
        folder: the run folder; see `training.run_folder` for what it will hold.
        resume: continue a run that was stopped, from its last checkpoint: the states of all streams are in it, so that
            it goes on in the middle of a pass.
        on_progress: called now and then; None shows the progress on standard error.
        on_report: called once for each thing to know about the text; None prints it on standard error.
        corpus: that of `read_corpus(config)`, where it is at hand already.

    Raises:
        InputError: what was given cannot be used; a resumed run's text is not the one that it began with; see
            `read_corpus`, `LanguageModel.build`, `TrainingStreams` and `training.fit`.
        KeyboardInterrupt: stopped with Ctrl-C; the message says how to continue.
    """
    config, folder = absolute_text(config), Path(folder)
    config.rivals.check("train", config.core)
    config.fast.check("train", config.core)
    configuration = language_config_json(config)
    place = RunFolder.claim(folder, configuration, resume=resume)  # refused before minutes are spent on reading
    corpus = corpus if corpus is not None else read_corpus(config)
    files = run_files(corpus)
    if place.resumed:
        check_same_text(folder, files)
    problem = LanguageProblem(build_language_model(config, corpus.vocabulary.size), corpus, config)
    for line in corpus.report:
        (on_report or print_report)(line)
    return fit(
        problem,
        folder,
        optimizer=config.optimizer,
        loop=config.loop,
        seed=config.seed,
        configuration=configuration,
        resume=resume,
        on_progress=on_progress,
        files=files,
        accumulate=config.accumulate,
        averaging=config.averaging,
        best_by="loss",
    )


def compare_language(
    base: LanguageRun,
    cores: Sequence[CoreName],
    seeds: Sequence[int],
    folder: Path | str,
    *,
    tuning: TuningConfig | None = None,
    jobs: int = 1,
    on_progress: Callable[[Progress], None] | None = None,
    on_report: Callable[[str], None] | None = None,
    on_trials: Callable[[Sequence[Trial]], None] | None = None,
    on_run: Callable[[Path, LanguageEvaluation], None] | None = None,
) -> dict[Path, LanguageEvaluation]:
    """Train and measure a run for every core and seed; called again, it goes on where it was stopped.

    Args:
        base: the configuration of all runs but for core and seed.
        cores: names of cores.
        seeds: seeds of runs.
        folder: gets one run folder `<core>-<seed>` for each.
        tuning: learning rates that every core tries first, in `folder`/trials; None for the base's.
        jobs: how many runs are trained at the same time, each in a process of its own; a script that asks for several
            does so under `if __name__ == "__main__"`, since these processes import it.
        on_progress: see `train_language`; one job only.
        on_report: see `train_language`; called for the text once, where there is a run to train.
        on_trials: called with the trials of `tuning` when they are done.
        on_run: called with the folder and the measurement of each run as soon as it is there.

    Returns:
        the measurements by run folder, seeds within cores in the given order.

    Raises:
        InputError: a core or a seed is given twice or not at all; no size of a core fits; a folder holds a run of
            another configuration; training diverges with every learning rate to try; `jobs` below 1, or several and
            `on_progress`; see `train_language`.
    """
    check_grid(cores, seeds, base.rivals, base.fast)
    base = absolute_text(base)
    corpus = read_corpus(base)
    for core in cores:  # a rival that has no fitting size is found now, not after the first hours
        LanguageProblem(build_language_model(for_core(base, core), corpus.vocabulary.size), corpus, base)

    def prepare() -> Callable[..., object]:
        for line in corpus.report:
            (on_report or print_report)(line)
        # other processes map the token files themselves; a pickle would copy them
        return partial(train_language, on_report=say_nothing, corpus=corpus if jobs == 1 else None)

    def measure(config: LanguageRun, path: Path) -> LanguageEvaluation:
        return read_result(path, LanguageEvaluation, config.loop.steps) or evaluate_language(path)

    return run_grid(
        base,
        cores,
        seeds,
        Path(folder),
        tuning=tuning,
        jobs=jobs,
        configuration=language_config_json,
        prepare=prepare,
        measure=measure,
        on_progress=on_progress,
        best_by="loss",
        on_trials=on_trials,
        on_run=on_run,
    )
