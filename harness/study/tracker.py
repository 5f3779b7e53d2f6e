"""From a study to its tracking records in MLflow.

The tracker writes epochs as they are reported, and reads from the Optuna storage how a trial ended. If a driver is
killed between the two, the next one writes the missing records.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from harness.config.study import StudyPlace, StudySpec, experiment_words, named_terms, terms_of_all
from harness.config.trial import TrialConfig
from harness.study.files import BEST, FIGURES, TrialFiles
from harness.study.plan import Plan
from harness.study.records import TrialRecord, TrialReport
from harness.training.metrics import METRICS
from tracking import names, records, ui, views
from tracking.mlflow_store import load_mlflow
from tracking.names import experiment_name
from tracking.outbox import Outbox

_STATUS: dict[TrialState, records.Status] = {
    TrialState.COMPLETE: "FINISHED",
    TrialState.PRUNED: "FINISHED",
    TrialState.FAIL: "FAILED",
    TrialState.WAITING: "KILLED",
}

_KINDS = {
    False: (names.STUDY_KIND, names.TRIAL_KIND),
    True: (names.EVALUATION_KIND, names.EVALUATION_RUN_KIND),
}


class Tracker:
    """Writes the runs of one study, or of one evaluation, to its outbox."""

    def __init__(
        self, study: optuna.Study, spec: StudySpec, place: StudyPlace, *, plan: Plan, labels: Sequence[str]
    ) -> None:
        self._study, self._spec, self._place, self._plan = study, spec, place, plan
        self._kind, self._run_kind = _KINDS[plan.reads_test]
        self._uri = spec.tracking_uri or place.default_tracking_uri
        # Tune imports MLflow too, in this thread; a signal between two importing threads has been seen to hang both
        load_mlflow()
        self._outbox = Outbox(place.home, self._uri, experiment=experiment_of(spec))
        self._tags = {"study": spec.name, "space": spec.space, "seed": spec.seed, **spec.provenance}
        terms = {"trials": plan.n_trials, **terms_of_all(plan.trial(number).spec for number in range(plan.n_trials))}
        self._outbox.add(
            records.open_study(
                self._outbox.study_key,
                name=spec.name,
                params={} if plan.reads_test else terms,
                tags={**self._tags, **(terms if plan.reads_test else {})},  # an evaluation may be given more studies
                labels=labels,
                metrics=tuple(METRICS),
                kind=self._kind,
            )
        )
        self.finish_ended()

    def start(self, number: int) -> None:
        """Open the run of a trial that begins or goes on."""
        self._open(self._study.get_trials(deepcopy=False)[number])

    def epoch(self, report: TrialReport) -> None:
        """Write down an epoch, unless it was reported before."""
        last = report.last
        if self._outbox.has_epoch(report.number, last.epoch):
            return
        self._outbox.add(
            records.log_epoch(
                self._outbox.study_key,
                report.number,
                epoch=last.epoch,
                val={**last.figures, "loss": last.validation_loss},
                train={"loss": last.train_loss},
                val_f1=last.f1_by_label,
                lr=last.lr,
            )
        )

    def finish_ended(self) -> None:
        """End the runs of all trials that the storage says have ended."""
        for trial in self._study.get_trials(deepcopy=False):
            if trial.state.is_finished() and not self._outbox.has_ended(trial.number):
                self._finish(trial)

    def close(
        self,
        *,
        is_finished: bool,
        metrics: Mapping[str, float] | None = None,
        figures: Sequence[Path] = (),
        reports: Sequence[Path] = (),
    ) -> str:
        """End the study's run, and for now those of waiting trials; return a note on what was not delivered.

        Delivery gets a few seconds more. `metrics` are by default the best macro-F1 on validation, if a trial has one,
        and the number of trials that ended.
        """
        self.finish_ended()
        trials = self._study.get_trials(deepcopy=False)
        for trial in trials:
            if trial.state == TrialState.WAITING:
                self._finish(trial)
        values = [value for t in trials for value in TrialRecord.of(t).values.values()]
        best = {"macro_f1": max(values)} if values else {}
        ended = sum(t.state.is_finished() for t in trials)
        self._outbox.add(
            records.finish_study(
                self._outbox.study_key,
                status="FINISHED" if is_finished else "KILLED",
                metrics=metrics if metrics is not None else {**best, "trials": ended},
                artifacts={"figures": figures, "report": reports},
            )
        )
        return self._outbox.close()

    def ui_lines(self) -> list[str]:
        """Return the lines that explain how to open the study, or the evaluation, in the MLflow UI."""
        view = views.EVALUATED if self._plan.reads_test else views.RANKED
        return ui.ui_lines(self._place.home, self._uri, self._outbox.experiment_id, view=view)

    def _open(self, trial: FrozenTrial) -> None:
        config = TrialConfig.from_paths(TrialRecord.of(trial).paths or {})
        planned = self._plan.trial(trial.number)
        self._outbox.add(
            records.open_trial(
                self._outbox.study_key,
                trial.number,
                name=planned.run_name or f"{config.name}-{trial.number:03d}",
                params={**config.to_paths(), **named_terms(planned.spec)},
                tags={
                    **self._tags,
                    "space": planned.spec.space,
                    names.SYSTEM: config.name,
                    "trial_seed": planned.seed,
                    **planned.tags,
                },
                kind=self._run_kind,
            )
        )

    def _finish(self, trial: FrozenTrial) -> None:
        record = TrialRecord.of(trial)
        if record.paths is None:  # it was never drawn to its end
            return
        self._open(trial)
        report = record.report
        test = (report.test or {}) if report else {}
        self._outbox.add(
            records.finish_trial(
                self._outbox.study_key,
                trial.number,
                status=_STATUS[trial.state],
                metrics=report.best.figures if report else {},
                f1=report.best.f1_by_label if report else {},
                test={name: test[name] for name in METRICS if name in test},
                test_f1=test.get("f1_by_label", {}),
                params_by_part=report.parameters if report else {},
                epochs=report.last.epoch if report else None,
                seconds=report.seconds if report else None,
                tags={"optuna_state": trial.state.name, "worker": report.worker if report else None},
                reason=record.reason or None,
                artifacts={
                    "figures": self._local_files(trial.number, FIGURES),
                    "checkpoint": self._local_files(trial.number, (BEST,)),
                },
            )
        )

    def _local_files(self, number: int, names: Sequence[str]) -> list[Path]:
        """Return the existing ones of a trial's files, fetched if the shared storage is not local."""
        files = TrialFiles(self._place.shared, number)
        found = []
        for name in names:
            path = Path(TrialFiles(str(self._place.home), number).path(name))
            if "://" in self._place.shared and (content := files.read(name)) is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            if path.exists():
                found.append(path)
        return found


def experiment_of(spec: StudySpec) -> str:
    """Return the name of the experiment that holds a study."""
    return experiment_name(*experiment_words(spec))
